// At most 16 tokens: a block takes two panels, its warps split k and add their sums in the order of the warps through
// shared memory. Nothing is shared before that: each warp reads ahead into registers, FewDepth() blocks of 32 columns deep, so
// that a multiprocessor has 2 KiB of 4-bit codes per warp under way.
//
// Bound: the bytes of the weight, read once, and instructions: 137 (SASS of sm_90, 4 bits, 8 tokens) for a block of two
// panels, 1024 weights, where the bandwidth of an H200 leaves time for about 125. Not measured.
#pragma once
#include "panel_mma.cuh"

namespace prism::cuda {

template <int kTiles>
using FewSums = BlockSums<kPanelsPerWarp, 8 * kTiles>;

// Blocks read ahead: what the registers hold.
template <class Source>
PRISM_HOST_DEVICE constexpr int FewDepth(int tiles) {
  return tiles > 1 ? 2 : Source::kFewWarps > 12 ? 4 : 3;
}

template <class Source, int kTiles>
struct FewSlot {
  typename Source::Words words[kPanelsPerWarp];
  uint4 x[kTiles], column_scale;
};

// One warp's share of k. Lanes of tokens past m read the last one: no output of theirs is stored.
template <class Source, class Arithmetic, int kTiles>
class FewWarp {
 public:
  __device__ FewWarp(const typename Source::Args& weight, const PanelLinearArgs& a, int64_t panel, int begin, int end,
                     unsigned char* shared)
      : scaled_(a.column_scale != nullptr),
        sources_{Source(weight, panel, begin, end, shared),
                 Source(weight, min(panel + 1, NumPanels(a.out.n) - 1), begin, end, shared + Source::kSharedBytes)},
        group_end_(a.group_blocks, begin, end) {
    const int lane = threadIdx.x % 32, column = begin * static_cast<int>(kBlockColumns) + lane % 4 * 8;
#pragma unroll
    for (int j = 0; j < kTiles; ++j) {
      const int64_t token = min(static_cast<int64_t>(8 * j + lane / 4), a.out.m - 1);
      x_[j] = static_cast<const uint16_t*>(a.x) + token * a.k + column;
    }
    column_scale_ = scaled_ ? a.column_scale + column : nullptr;
  }

  __device__ void Load(int block, FewSlot<Source, kTiles>& slot) {
#pragma unroll
    for (int p = 0; p < kPanelsPerWarp; ++p) sources_[p].Load(block, slot.words[p]);
#pragma unroll
    for (int j = 0; j < kTiles; ++j) {
      slot.x[j] = LoadEight(x_[j]);
      x_[j] += kBlockColumns;
    }
    if (!scaled_) return;
    slot.column_scale = LoadEight(column_scale_);
    column_scale_ += kBlockColumns;
  }

  __device__ void Multiply(int block, const FewSlot<Source, kTiles>& slot, PanelSums<Source::kScaled, kTiles>& sums) {
    uint32_t b[kTiles][4];
#pragma unroll
    for (int j = 0; j < kTiles; ++j) {
      uint4 x = slot.x[j];
      if (scaled_) x = ScaleEight<Arithmetic>(x, slot.column_scale);
      b[j][0] = x.x, b[j][1] = x.y, b[j][2] = x.z, b[j][3] = x.w;
    }
    const bool closes = Source::kScaled && group_end_.At(block);
#pragma unroll
    for (int p = 0; p < kPanelsPerWarp; ++p) {
      const auto fragment = sources_[p].template Decode<Arithmetic>(block, slot.words[p]);
#pragma unroll
      for (int j = 0; j < kTiles; ++j) fragment.template Multiply<Arithmetic>(sums.group[p][j], b[j]);
      if constexpr (Source::kScaled) {
        if (closes) {
          float scale[2];
          sources_[p].Scales(slot.words[p], scale);
          sums.CloseGroup(p, scale);
        }
      }
    }
  }

 private:
  const bool scaled_;
  const uint16_t* x_[kTiles];  // of the next block
  const uint16_t* column_scale_;
  Source sources_[kPanelsPerWarp];
  GroupEnd group_end_;
};

// Grid: pairs of panels. Shared memory: the warps' sums FewSums, then kSharedBytes of each Source.
template <class Source, class Arithmetic, int kTiles>
__global__ void __launch_bounds__(Source::kFewWarps * 32) PanelLinearFewKernel(typename Source::Args weight, PanelLinearArgs a) {
  constexpr int kDepth = FewDepth<Source>(kTiles);
  PRISM_DYNAMIC_SMEM(shared);
  auto* const kept = reinterpret_cast<float*>(shared);
  const int warp = threadIdx.x / 32, warps = blockDim.x / 32;
  const int64_t panel = static_cast<int64_t>(blockIdx.x) * kPanelsPerWarp;
  const int blocks = static_cast<int>(NumBlocks32(a.k)), begin = blocks * warp / warps, end = blocks * (warp + 1) / warps;
  PanelSums<Source::kScaled, kTiles> sums;
  if (begin < end) {
    unsigned char* const own = shared + warps * FewSums<kTiles>::kWarpFloats * 4 + warp * kPanelsPerWarp * Source::kSharedBytes;
    FewWarp<Source, Arithmetic, kTiles> work(weight, a, panel, begin, end, own);
    FewSlot<Source, kTiles> slots[kDepth];
#pragma unroll
    for (int i = 0; i < kDepth; ++i) {
      if (begin + i < end) work.Load(begin + i, slots[i]);
    }
    for (int first = begin; first < end; first += kDepth) {
#pragma unroll
      for (int i = 0; i < kDepth; ++i) {
        const int block = first + i;
        if (block >= end) break;
        work.Multiply(block, slots[i], sums);
        if (block + kDepth < end) work.Load(block + kDepth, slots[i]);
      }
    }
  }
#pragma unroll
  for (int p = 0; p < kPanelsPerWarp; ++p) {
#pragma unroll
    for (int j = 0; j < kTiles; ++j) FewSums<kTiles>::Keep(kept + warp * FewSums<kTiles>::kWarpFloats, p, j, sums.Of(p, j));
  }
  __syncthreads();
  FewSums<kTiles>::Finish(a.out, a.out.dtype, kept, warps, 0, panel * kPanelRows);
}

}  // namespace prism::cuda
