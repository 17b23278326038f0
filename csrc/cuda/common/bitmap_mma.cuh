// Linears over a weight behind a bitmap, on tensor cores: y [m, n] = x [m, k] @ weight^T, the weight as operand A of
// mma.m16n8k16, expanded into registers.
//
// k is summed over, so it may be permuted alike in A and B: in a block of 32 columns lane (g = lane / 4, t = lane % 4) takes
// columns 8t..8t+7, one 16-byte vector of the activations of token g. Rows may be permuted too: fragment row g is row 2g of
// the panel, g + 8 is row 2g + 1. Then what a lane needs of a pair or quad is contiguous in the stream of survivors, and its
// begin is the unit's begin plus one popcount of the bits below.
//
// A warp takes a range of the columns of kPanels panels, 32 units (a chunk) at a time. Where a chunk's survivors begin is
// not stored anywhere: a block first sums up the sizes of what lies before each of its warps from the masks, which it reads
// anyway (the second time from the second-level cache), while prefetches bring its survivors there. From then on a lane
// holds the mask of a unit, a sum over the warp places the units, and the exact range of bytes, widened to 16-byte vectors,
// is copied to shared memory asynchronously, kStages - 1 chunks ahead. A stage holds a full chunk: no density overruns it.
//
// Blocks split n by panels, k by gridDim.y, tokens by gridDim.z; sums of a block's warps are added in their order, and those
// of gridDim.y blocks by AddPartialSums in theirs: results do not depend on timing. Work is balanced by columns, which is
// what instructions and masks cost; panels of unequal length are balanced by the scheduler, block by block.
//
// Bound at 50 % and few tokens: instructions, not memory. A position costs about 12 (4-bit codes, SASS of sm_90), where the
// bandwidth of an H200 leaves time for 3.
#pragma once
#include "bitmap.cuh"
#include "ptx.cuh"

namespace prism::cuda {

inline constexpr int kMmaWarps = 8;
inline constexpr int kMmaThreads = 32 * kMmaWarps;
inline constexpr int kStages = 4;
inline constexpr int kChunkUnits = 32;

struct BFloat16Mma {
  static constexpr DType kDType = DType::kBFloat16;
  static constexpr uint32_t kInteger = 0x43004300u;  // | q < 128 is the pair 128 + q
  static constexpr uint32_t kOne = 0x3f803f80u;
  static __device__ void Mma(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) { MmaBf16(d, a, b); }
  static __device__ uint32_t Pack(float low, float high) { return PackBf16(low, high); }
  static __device__ uint32_t Fma(uint32_t a, uint32_t b, uint32_t c) { return FmaBf16(a, b, c); }
};

struct Float16Mma {
  static constexpr DType kDType = DType::kFloat16;
  static constexpr uint32_t kInteger = 0x64006400u;  // | q < 1024 is the pair 1024 + q
  static constexpr uint32_t kOne = 0x3c003c00u;
  static __device__ void Mma(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) { MmaFp16(d, a, b); }
  static __device__ uint32_t Pack(float low, float high) { return PackFp16(low, high); }
  static __device__ uint32_t Fma(uint32_t a, uint32_t b, uint32_t c) { return FmaFp16(a, b, c); }
};

// Everything but the weight.
struct BitmapMmaArgs {
  const void* x;                 // direct: [m, k] of the 16-bit dtype, k % 32 == 0; else fragments, bitmap_activations.cuh
  bool direct;
  const uint16_t* column_scale;  // bfloat16 [k] that multiplies a direct x, or null
  const float* token_scale;      // [m] that multiplies y, or null
  const void* bias;              // [n] of y_dtype, or null
  DType y_dtype;
  void* y;         // [m, n]
  float* partial;  // [gridDim.y, m, n] where gridDim.y > 1
  int64_t m, n, k;
};

// How many tokens, panels and warps: kPanelWarps times kMmaWarps / kPanelWarps warps of a block share columns and split them.
template <int kTiles_, int kPanels_, int kPanelWarps_>
struct MmaShape {
  static constexpr int kTiles = kTiles_, kPanels = kPanels_, kPanelWarps = kPanelWarps_;
  static constexpr int kSplit = kMmaWarps / kPanelWarps, kTokens = 8 * kTiles, kBlockPanels = kPanels * kPanelWarps;
  static constexpr int kSumBytes = kMmaWarps * kPanels * kTokens * 16 * 4;
};
using OneTile = MmaShape<1, 1, 1>;
using TwoTiles = MmaShape<2, 1, 4>;
using EightTiles = MmaShape<8, 2, 4>;

template <class Source, class Shape>
PRISM_HOST_DEVICE constexpr int BitmapMmaSharedBytes() {
  constexpr int kRing = kMmaWarps * Shape::kPanels * kStages * Source::kStageBytes + Source::kTableBytes;
  return (kRing > Shape::kSumBytes ? kRing : Shape::kSumBytes) + Shape::kBlockPanels * Shape::kSplit * 2 * 4;
}

// y, once the sum is complete.
__device__ inline void StoreSum(const BitmapMmaArgs& a, int64_t token, int64_t row, float sum) {
  if (a.token_scale != nullptr) sum *= a.token_scale[token];
  if (a.bias != nullptr) sum += LoadFloat(a.bias, a.y_dtype, row);
  StoreFloat(sum, a.y, a.y_dtype, token * a.n + row);
}

// A lane's view of the activations: vectors of 8 columns of the token of each tile, block by block.
template <class Half, class Shape>
class TokenReader {
 public:
  __device__ TokenReader(const BitmapMmaArgs& a) {
    const int lane = static_cast<int>(threadIdx.x) % 32, g = lane / 4, t = lane % 4;
    if (Shape::kTiles == 1 && a.direct) {
      const int64_t token = static_cast<int64_t>(blockIdx.z) * Shape::kTokens + g;
      at_ = reinterpret_cast<const uint4*>(static_cast<const uint16_t*>(a.x) + min(token, a.m - 1) * a.k) + t;
      factors_ = a.column_scale == nullptr ? nullptr : reinterpret_cast<const uint4*>(a.column_scale) + t;
      stride_ = 4;
      there_ = token < a.m;
    } else {
      at_ = static_cast<const uint4*>(a.x) + blockIdx.z * NumBlocks32(a.k) * Shape::kTiles * 32 + lane;
      factors_ = nullptr;
      stride_ = Shape::kTiles * 32;
      there_ = true;
    }
  }

  // 0 where `exists` is false.
  __device__ void Load(int64_t block, bool exists, uint4 (&tokens)[Shape::kTiles]) const {
#pragma unroll
    for (int tile = 0; tile < Shape::kTiles; ++tile) {
      tokens[tile] = make_uint4(0, 0, 0, 0);
      if (exists && there_) tokens[tile] = __ldg(at_ + block * stride_ + tile * 32);
    }
    if (Shape::kTiles == 1 && factors_ != nullptr && exists) {
      constexpr uint32_t kMinusZero = 0x80008000u;  // leaves the sign of a product that is 0
      const uint4 factors = __ldg(factors_ + block * 4);
      tokens[0].x = Half::Fma(tokens[0].x, factors.x, kMinusZero);
      tokens[0].y = Half::Fma(tokens[0].y, factors.y, kMinusZero);
      tokens[0].z = Half::Fma(tokens[0].z, factors.z, kMinusZero);
      tokens[0].w = Half::Fma(tokens[0].w, factors.w, kMinusZero);
    }
  }

 private:
  const uint4 *at_, *factors_;
  int64_t stride_;
  bool there_;
};

// The bytes that the chunks [begin, end) of a panel take; every lane gets the sum.
template <class Source>
__device__ inline int SizeOfChunks(const typename Source::Weight& weight, int64_t panel, int begin, int end) {
  int size = 0;
  auto masks = Source::Masks(weight, panel, begin);
#pragma unroll 4
  for (int chunk = begin; chunk < end; ++chunk) size += masks.Next().Size(weight.bits);
  return SumOfWarp(size);
}

// Adds up the sums [kPanels][kTiles][4] of all warps of the block and stores them.
template <class Shape>
__device__ inline void FinishBlock(const BitmapMmaArgs& a, const float (&sums)[Shape::kPanels][Shape::kTiles][4], float* shared) {
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32, g = lane / 4, t = lane % 4;
  constexpr int kPanelFloats = Shape::kTokens * 16;
  __syncthreads();  // stages are read
#pragma unroll
  for (int panel = 0; panel < Shape::kPanels; ++panel) {
    float* const to = shared + (warp * Shape::kPanels + panel) * kPanelFloats;
#pragma unroll
    for (int tile = 0; tile < Shape::kTiles; ++tile) {
#pragma unroll
      for (int i = 0; i < 4; ++i) to[(8 * tile + 2 * t + i % 2) * 16 + 2 * g + i / 2] = sums[panel][tile][i];
    }
  }
  __syncthreads();
  const int64_t first_token = static_cast<int64_t>(blockIdx.z) * Shape::kTokens;
  const int64_t first_row = static_cast<int64_t>(blockIdx.x) * Shape::kBlockPanels * kPanelRows;
  constexpr int kRows = Shape::kBlockPanels * 16;
  for (int i = static_cast<int>(threadIdx.x); i < kRows * Shape::kTokens; i += kMmaThreads) {
    const int row = i % kRows, token = i / kRows, panel = row / 16;
    if (first_row + row >= a.n || first_token + token >= a.m) continue;
    float sum = 0.0f;
#pragma unroll
    for (int split = 0; split < Shape::kSplit; ++split) {
      const int own = (panel / Shape::kPanels * Shape::kSplit + split) * Shape::kPanels + panel % Shape::kPanels;
      sum += shared[own * kPanelFloats + token * 16 + row % 16];
    }
    if (a.partial == nullptr) {
      StoreSum(a, first_token + token, first_row + row, sum);
    } else {
      a.partial[(static_cast<int64_t>(blockIdx.y) * a.m + first_token + token) * a.n + first_row + row] = sum;
    }
  }
}

template <class Source, class Half, class Shape>
__global__ void __launch_bounds__(kMmaThreads, Shape::kTiles == 1 ? 3 : Shape::kTiles == 2 ? 2 : 1) BitmapMmaKernel(typename Source::Weight weight, BitmapMmaArgs a) {
  PRISM_DYNAMIC_SMEM(shared);
  constexpr int kPanels = Shape::kPanels, kSplit = Shape::kSplit;
  const int warp = static_cast<int>(threadIdx.x) / 32, split = warp % kSplit;
  const int64_t panels = NumPanels(a.n), chunks = CeilDiv(CeilDiv(a.k, Source::kColumns), kChunkUnits);
  const auto share = [](int64_t count, int64_t part, int64_t parts) { return static_cast<int>(count * part / parts); };
  const int block_begin = share(chunks, blockIdx.y, gridDim.y), block_end = share(chunks, blockIdx.y + 1, gridDim.y);
  const int begin = block_begin + share(block_end - block_begin, split, kSplit);
  const int end = block_begin + share(block_end - block_begin, split + 1, kSplit);
  const int64_t first_panel = static_cast<int64_t>(blockIdx.x) * Shape::kBlockPanels + warp / kSplit * kPanels;
  unsigned char* const ring = shared + warp * kPanels * kStages * Source::kStageBytes;
  unsigned char* const table = shared + kMmaWarps * kPanels * kStages * Source::kStageBytes;
  int* const sizes = reinterpret_cast<int*>(shared + BitmapMmaSharedBytes<Source, Shape>()) - Shape::kBlockPanels * kSplit * 2;

  Source source[kPanels];
#pragma unroll
  for (int p = 0; p < kPanels; ++p) {
    // A panel past the last one repeats it; its rows are not stored.
    source[p].Start(weight, min(first_panel + p, panels - 1), begin, end, ring + p * kStages * Source::kStageBytes, table);
    int* const own = sizes + ((warp / kSplit * kPanels + p) * kSplit + split) * 2;
    const int before = SizeOfChunks<Source>(weight, source[p].panel, share(block_begin, split, kSplit), share(block_begin, split + 1, kSplit));
    const int mine = SizeOfChunks<Source>(weight, source[p].panel, begin, end);
    if (threadIdx.x % 32 == 0) own[0] = before, own[1] = mine;
  }
  Source::FillTable(weight, table);
  __syncthreads();
#pragma unroll
  for (int p = 0; p < kPanels; ++p) {
    const int* const of_panel = sizes + (warp / kSplit * kPanels + p) * kSplit * 2;
    for (int other = 0; other < kSplit; ++other) source[p].position += of_panel[2 * other] + (other < split ? of_panel[2 * other + 1] : 0);
  }

  float sums[kPanels][Shape::kTiles][4] = {};
  const auto issue = [&](int chunk) {
    if (chunk < end) {
#pragma unroll
      for (int p = 0; p < kPanels; ++p) source[p].Issue(weight, (chunk - begin) % kStages);
    }
    CopyAsyncCommit();
  };
  for (int ahead = 0; ahead < kStages - 1; ++ahead) issue(begin + ahead);
  const TokenReader<Half, Shape> reader(a);
  const auto multiply = [&](int block, bool last, const uint4(&tokens)[Shape::kTiles]) {
#pragma unroll
    for (int p = 0; p < kPanels; ++p) {
      uint32_t fragments[2][4];
      source[p].template Fragments<Half>(weight, block, fragments);
#pragma unroll
      for (int tile = 0; tile < Shape::kTiles; ++tile) {
        const uint32_t first[2] = {tokens[tile].x, tokens[tile].y}, second[2] = {tokens[tile].z, tokens[tile].w};
        Half::Mma(source[p].Sums(sums[p], tile), fragments[0], first);
        Half::Mma(source[p].Sums(sums[p], tile), fragments[1], second);
      }
      source[p].EndBlock(weight, last, sums[p]);
    }
  };
  for (int chunk = begin; chunk < end; ++chunk) {
    constexpr bool kAhead = Shape::kTiles <= 2;  // a chunk's activations are asked for before its weights are waited for
    const int64_t first_block = static_cast<int64_t>(chunk) * Source::kBlocks;
    const int blocks = static_cast<int>(min(static_cast<int64_t>(Source::kBlocks), NumBlocks32(a.k) - first_block));
    uint4 tokens[kAhead ? Source::kBlocks : 1][Shape::kTiles];
    if constexpr (kAhead) {
#pragma unroll
      for (int block = 0; block < Source::kBlocks; ++block) reader.Load(first_block + block, block < blocks, tokens[block]);
    }
    CopyAsyncWait<kStages - 2>();
    __syncwarp();  // this chunk is there for all lanes, and all have read the one before
    issue(chunk + kStages - 1);
#pragma unroll
    for (int p = 0; p < kPanels; ++p) source[p].StartChunk(weight, (chunk - begin) % kStages);
    const auto is_last = [&](int block) { return chunk + 1 == end && block + 1 == blocks; };
    if constexpr (kAhead) {
#pragma unroll
      for (int block = 0; block < Source::kBlocks; ++block) {
        if (block < blocks) multiply(block, is_last(block), tokens[block]);
      }
    } else {
      for (int block = 0; block < blocks; ++block) {
        reader.Load(first_block + block, true, tokens[0]);
        multiply(block, is_last(block), tokens[0]);
      }
    }
  }
  CopyAsyncWait<0>();
  FinishBlock<Shape>(a, sums, reinterpret_cast<float*>(shared));
}

// y of the partial sums of the `splits` blocks that share a row, added in their order. Defined in bitmap_sum.cu.
cudaError_t AddPartialSums(const BitmapMmaArgs& args, int splits, cudaStream_t stream);

// Blocks that share the columns of a row, so that every multiprocessor has one.
template <class Source, class Shape>
int BitmapMmaSplits(int64_t m, int64_t n, int64_t k) {
  const int64_t blocks = CeilDiv(NumPanels(n), Shape::kBlockPanels) * CeilDiv(m, Shape::kTokens);
  const int64_t chunks = CeilDiv(CeilDiv(k, Source::kColumns), kChunkUnits);
  const int64_t most = max(chunks / (2 * Shape::kSplit), int64_t{1});  // two chunks for each warp at least
  return static_cast<int>(min(max(NumMultiprocessors() / blocks, int64_t{1}), most));
}

template <class Source, class Half, class Shape>
cudaError_t LaunchBitmapMma(const typename Source::Weight& weight, const BitmapMmaArgs& args, int splits, cudaStream_t stream) {
  BitmapMmaArgs a = args;
  if (splits == 1) a.partial = nullptr;
  const dim3 grid(static_cast<unsigned>(CeilDiv(NumPanels(a.n), Shape::kBlockPanels)), static_cast<unsigned>(splits),
                  static_cast<unsigned>(CeilDiv(a.m, Shape::kTokens)));
  const cudaError_t error = Launch(BitmapMmaKernel<Source, Half, Shape>, grid, kMmaThreads, BitmapMmaSharedBytes<Source, Shape>(), stream, weight, a);
  if (error != cudaSuccess || splits == 1) return error;
  return AddPartialSums(a, splits, stream);
}

}  // namespace prism::cuda
