// More than 16 tokens: a block takes 16 panels (two for each of its 8 warps) and 64 tokens; k may be split between blocks,
// whose float32 sums a second kernel adds in order. x comes through shared memory, kManyStages buffers of 64 columns filled
// by asynchronous copies; each thread multiplies what it copied by the column scale before the others read it. Weights go
// straight to registers, one stage ahead.
//
// A row of x in a buffer is 8 vectors of 16 bytes; odd tokens have their halves exchanged, so that the 8 lanes of a phase
// (2 tokens x 4 vectors) meet all banks.
//
// Bound: at 64 tokens the bytes of the weight and of x (128 KiB of x for 64 KiB of 4-bit codes, from the second cache)
// and the tensor cores meet; beyond, mma.sync reaches about 0.62 to 0.75 of what wgmma does on Hopper.
#pragma once
#include "panel_mma.cuh"

namespace prism::cuda {

inline constexpr int kManyWarps = 8, kManyThreads = 32 * kManyWarps;
inline constexpr int kManyPanels = kManyWarps * kPanelsPerWarp;
inline constexpr int kManyTiles = 8, kManyTokens = 8 * kManyTiles;
inline constexpr int kManyBlocks = 2;  // of 32 columns, per stage
inline constexpr int kManyColumns = kManyBlocks * static_cast<int>(kBlockColumns), kManyVectors = kManyColumns / 8;
inline constexpr int kManyStages = 4;
inline constexpr int kManyStageBytes = kManyTokens * kManyColumns * 2;

// Where vector `vector` (eight columns) of a token lies in a buffer.
__device__ inline int ManyOffset(int token, int vector) {
  return (token * kManyVectors + (vector ^ (token % 2 * (kManyVectors / 2)))) * 16;
}

// Brings x to shared memory, stage by stage. A thread copies one column vector of two tokens.
template <class Arithmetic>
class ManyTokens {
 public:
  __device__ ManyTokens(const PanelLinearArgs& a, int64_t first_token, unsigned char* buffers)
      : a_(a),
        first_(first_token),
        buffers_(buffers),
        vector_(threadIdx.x % kManyVectors),
        token_(threadIdx.x / kManyVectors) {}

  // Begins a stage; every call closes a group of copies, also past the end.
  __device__ void Copy(int stage, int end_stage) {
    if (stage < end_stage) {
      const int column = stage * kManyColumns + vector_ * 8;
#pragma unroll
      for (int i = 0; i < kPerThread; ++i) {
        const int token = token_ + i * kTokenStep;
        const auto* x = static_cast<const uint16_t*>(a_.x);
        const bool live = first_ + token < a_.out.m && column < a_.k;
        CopyAsync16(At(stage, token), live ? x + (first_ + token) * a_.k + column : x, live ? 16 : 0);
      }
    }
    CopyAsyncCommit();
  }

  // The column scale of a stage, read while another one is multiplied.
  __device__ void LoadScale(int stage, int end_stage) {
    const int column = stage * kManyColumns + vector_ * 8;
    if (a_.column_scale != nullptr && stage < end_stage && column < a_.k) scale_ = LoadEight(a_.column_scale + column);
  }

  // After this thread's copies of the stage have landed.
  __device__ void Scale(int stage) {
    if (a_.column_scale == nullptr) return;
#pragma unroll
    for (int i = 0; i < kPerThread; ++i) {
      auto* const at = static_cast<uint4*>(At(stage, token_ + i * kTokenStep));
      *at = ScaleEight<Arithmetic>(*at, scale_);
    }
  }

 private:
  static constexpr int kTokenStep = kManyThreads / kManyVectors, kPerThread = kManyTokens / kTokenStep;

  __device__ void* At(int stage, int token) const {
    return buffers_ + stage % kManyStages * kManyStageBytes + ManyOffset(token, vector_);
  }

  const PanelLinearArgs& a_;
  const int64_t first_;
  unsigned char* const buffers_;
  const int vector_, token_;
  uint4 scale_ = make_uint4(0, 0, 0, 0);
};

// The two panels of a warp over one block of columns; `x` is the stage's buffer, `live` the tiles that hold tokens.
template <class Source, class Arithmetic>
__device__ void MultiplyMany(Source (&sources)[kPanelsPerWarp], const typename Source::Words (&words)[kPanelsPerWarp],
                             int block, bool closes, const unsigned char* x, int live,
                             PanelSums<Source::kScaled, kManyTiles>& sums) {
  using Fragment = decltype(sources[0].template Decode<Arithmetic>(block, words[0]));
  const int lane = threadIdx.x % 32, vector = block % kManyBlocks * 4 + lane % 4;
  Fragment fragments[kPanelsPerWarp];
#pragma unroll
  for (int p = 0; p < kPanelsPerWarp; ++p) fragments[p] = sources[p].template Decode<Arithmetic>(block, words[p]);
#pragma unroll
  for (int j = 0; j < kManyTiles; ++j) {
    if (j < live) {
      const uint4 eight = *reinterpret_cast<const uint4*>(x + ManyOffset(8 * j + lane / 4, vector));
      const uint32_t b[4] = {eight.x, eight.y, eight.z, eight.w};
#pragma unroll
      for (int p = 0; p < kPanelsPerWarp; ++p) fragments[p].template Multiply<Arithmetic>(sums.group[p][j], b);
    }
  }
  if constexpr (Source::kScaled) {
    if (!closes) return;
#pragma unroll
    for (int p = 0; p < kPanelsPerWarp; ++p) {
      float scale[2];
      sources[p].Scales(words[p], scale);
      sums.CloseGroup(p, scale);
    }
  }
}

// Grid: x: tiles of tokens (fastest) x sets of panels, y: splits of k. Shared memory: the stages, then the Sources'.
template <class Source, class Arithmetic>
__global__ void __launch_bounds__(kManyThreads) PanelLinearManyKernel(typename Source::Args weight, PanelLinearArgs a) {
  PRISM_DYNAMIC_SMEM(shared);
  const int warp = threadIdx.x / 32;
  const int64_t token_tiles = CeilDiv(a.out.m, kManyTokens), first_token = blockIdx.x % token_tiles * kManyTokens;
  const int64_t panel = blockIdx.x / token_tiles * kManyPanels + warp * kPanelsPerWarp, last = NumPanels(a.out.n) - 1;
  const int blocks = static_cast<int>(NumBlocks32(a.k)), stages = (blocks + kManyBlocks - 1) / kManyBlocks;
  const int split = static_cast<int>(blockIdx.y), begin = stages * split / a.splits, end = stages * (split + 1) / a.splits;
  const int begin_block = begin * kManyBlocks, end_block = min(end * kManyBlocks, blocks);
  const int live = static_cast<int>(min(CeilDiv(a.out.m - first_token, int64_t{8}), static_cast<int64_t>(kManyTiles)));
  unsigned char* const own = shared + kManyStages * kManyStageBytes + warp * kPanelsPerWarp * Source::kSharedBytes;
  Source sources[kPanelsPerWarp] = {Source(weight, min(panel, last), begin_block, end_block, own),
                                    Source(weight, min(panel + 1, last), begin_block, end_block, own + Source::kSharedBytes)};
  ManyTokens<Arithmetic> tokens(a, first_token, shared);
  PanelSums<Source::kScaled, kManyTiles> sums;
  GroupEnd group_end(a.group_blocks, begin_block, end_block);
  typename Source::Words words[kManyBlocks][kPanelsPerWarp];
  const auto load = [&](int block, typename Source::Words (&to)[kPanelsPerWarp]) {
    if (block >= end_block) return;
#pragma unroll
    for (int p = 0; p < kPanelsPerWarp; ++p) sources[p].Load(block, to[p]);
  };
  tokens.LoadScale(begin, end);
  for (int s = 0; s + 1 < kManyStages; ++s) tokens.Copy(begin + s, end);
#pragma unroll
  for (int i = 0; i < kManyBlocks; ++i) load(begin_block + i, words[i]);
  for (int stage = begin; stage < end; ++stage) {
    CopyAsyncWait<kManyStages - 2>();
    tokens.Scale(stage);
    __syncthreads();  // the stage is whole, and no thread reads the buffer that is filled next
    tokens.Copy(stage + kManyStages - 1, end);
    tokens.LoadScale(stage + 1, end);
    const unsigned char* const x = shared + stage % kManyStages * kManyStageBytes;
#pragma unroll
    for (int i = 0; i < kManyBlocks; ++i) {
      const int block = stage * kManyBlocks + i;
      if (block < end_block) {
        MultiplyMany<Source, Arithmetic>(sources, words[i], block, group_end.At(block), x, live, sums);
        load(block + kManyBlocks, words[i]);
      }
    }
  }
  CopyAsyncWait<0>();
#pragma unroll
  for (int p = 0; p < kPanelsPerWarp; ++p) {
#pragma unroll
    for (int j = 0; j < kManyTiles; ++j) {
      StoreSums(a.out, a.out.dtype, sums.Of(p, j), first_token + 8 * j, (panel + p) * kPanelRows, split);
    }
  }
}

}  // namespace prism::cuda
