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
// Blocks split n by panels and m by tokens along gridDim.x, and k along gridDim.y; sums of a block's warps are added in their order, and those
// of gridDim.y blocks by AddSplits in theirs: results do not depend on timing. Work is balanced by columns, which is
// what instructions and masks cost; panels of unequal length are balanced by the scheduler, block by block.
//
// Bound at 50 % and few tokens: instructions. Counted in the code for sm_90, a position costs about 9 of values, 7.3 of 4-bit
// codes and 8 tokens, 8.4 and 16 tokens (groups of 64); the bandwidth of an H200 leaves time for 7.8 and 3.1.
#pragma once
#include "arithmetic.cuh"
#include "bitmap.cuh"
#include "linear_output.cuh"

namespace prism::cuda {

inline constexpr int kMmaWarps = 8;
inline constexpr int kMmaThreads = 32 * kMmaWarps;
inline constexpr int kChunkUnits = 32;

// Everything but the weight.
struct BitmapMmaArgs {
  const void* x;                 // 16-bit: one tile: [m, k rounded up to 32]; else fragments, bitmap_activations.cuh
  const uint16_t* column_scale;  // one tile: bfloat16 [k] that still has to multiply x, or null
  LinearOutput out;              // partial: of gridDim.y blocks, where they are more than one
  int64_t k;
  unsigned token_blocks;  // blocks that share panels: gridDim.x is their number times that of the blocks of panels
};

// Blocks of the same panels follow one another, so that all but the first find the weight in the second-level cache.
__device__ inline int64_t TokenBlock(const BitmapMmaArgs& a) { return blockIdx.x % a.token_blocks; }
__device__ inline int64_t PanelBlock(const BitmapMmaArgs& a) { return blockIdx.x / a.token_blocks; }

// How many tokens, panels and warps: kPanelWarps times kMmaWarps / kPanelWarps warps of a block share columns and split them.
template <int kTiles_, int kPanels_, int kPanelWarps_>
struct MmaShape {
  static constexpr int kTiles = kTiles_, kPanels = kPanels_, kPanelWarps = kPanelWarps_;
  static constexpr int kSplit = kMmaWarps / kPanelWarps, kTokens = 8 * kTiles, kBlockPanels = kPanels * kPanelWarps;
  static constexpr int kBlocks = kTiles == 1 ? (kPanels == 1 ? 3 : 2) : kTiles == 2 ? 2 : 1;  // of a multiprocessor at once
  static constexpr int kStages = kTiles == 1 && kPanels == 2 ? 3 : 4;  // two blocks fit
  static constexpr int kSumBytes = kMmaWarps * kPanels * kTokens * 16 * 4;
};
using OneTile = MmaShape<1, 1, 1>;
using OneTileOfTwoPanels = MmaShape<1, 2, 1>;
using TwoTiles = MmaShape<2, 1, 4>;
using EightTiles = MmaShape<8, 2, 4>;

template <class Source, class Shape>
PRISM_HOST_DEVICE constexpr int BitmapMmaSharedBytes() {
  constexpr int kRing = kMmaWarps * Shape::kPanels * Shape::kStages * Source::kStageBytes + Source::kTableBytes;
  return (kRing > Shape::kSumBytes ? kRing : Shape::kSumBytes) + Shape::kBlockPanels * Shape::kSplit * 2 * 4;
}

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900
inline constexpr int kMultiprocessorSharedBytes = 164 * 1024;
#else
inline constexpr int kMultiprocessorSharedBytes = 228 * 1024;
#endif

// Blocks that a multiprocessor should hold at once: no fewer registers than for those whose shared memory fits.
template <class Source, class Shape>
PRISM_HOST_DEVICE constexpr int BitmapMmaBlocks() {
  if (Source::kOneShape) return 1;
  constexpr int kFit = kMultiprocessorSharedBytes / (BitmapMmaSharedBytes<Source, Shape>() + 1024);
  return kFit < Shape::kBlocks ? (kFit < 1 ? 1 : kFit) : Shape::kBlocks;
}

// A lane's activations, chunk by chunk: vectors of 8 columns of the token of each tile. What a one-tile kernel scales by
// columns is multiplied when it is used: loads are under way until then.
template <class Source, class Half, class Shape>
class TokenReader {
 public:
  struct Chunk {
    uint4 x[Source::kBlocks][Shape::kTiles];
    uint4 factors[Source::kBlocks];  // of one tile, where the source has column scales
  };

  __device__ TokenReader(const BitmapMmaArgs& a, int chunk) {
    const int lane = static_cast<int>(threadIdx.x) % 32, g = lane / 4, t = lane % 4;
    const int64_t blocks = NumBlocks32(a.k), first = static_cast<int64_t>(chunk) * Source::kBlocks;
    if constexpr (kRows) {
      const int64_t token = TokenBlock(a) * Shape::kTokens + g;
      there_ = token < a.out.m;
      at_ = static_cast<const uint4*>(a.x) + (min(token, a.out.m - 1) * blocks + first) * 4 + t;
      factors_ = a.column_scale == nullptr ? nullptr : reinterpret_cast<const uint4*>(a.column_scale) + first * 4 + t;
    } else {
      there_ = true;
      at_ = static_cast<const uint4*>(a.x) + (TokenBlock(a) * blocks + first) * kStride + lane;
      factors_ = nullptr;
    }
  }

  // Block `block` of the chunk; 0 where it does not exist.
  __device__ void Load(int block, bool exists, uint4 (&x)[Shape::kTiles]) const {
#pragma unroll
    for (int tile = 0; tile < Shape::kTiles; ++tile) {
      x[tile] = make_uint4(0, 0, 0, 0);
      if (exists && there_) x[tile] = __ldg(at_ + block * kStride + tile * 32);
    }
  }

  __device__ void Load(int blocks, Chunk& chunk) const {
#pragma unroll
    for (int block = 0; block < Source::kBlocks; ++block) {
      Load(block, block < blocks, chunk.x[block]);
    }
    if constexpr (kScales) {
      if (factors_ == nullptr) return;
#pragma unroll
      for (int block = 0; block < Source::kBlocks; ++block) chunk.factors[block] = __ldg(factors_ + min(block, blocks - 1) * kStride);
    }
  }

  __device__ void Scale(int block, Chunk& chunk) const {
    if constexpr (kScales) {
      if (factors_ == nullptr) return;
      chunk.x[block][0] = ScaleEight<Half>(chunk.x[block][0], chunk.factors[block]);
    }
  }

  __device__ void Advance() {
    at_ += Source::kBlocks * kStride;
    if (factors_ != nullptr) factors_ += Source::kBlocks * kStride;
  }

 private:
  static constexpr bool kRows = Shape::kTiles == 1;
  // float16 activations come scaled: a bfloat16 factor may lie outside their range.
  static constexpr bool kScales = kRows && Source::kScaled && Half::kDType == DType::kBFloat16;
  static constexpr int kStride = kRows ? 4 : Shape::kTiles * 32;  // vectors of a block

  const uint4 *at_, *factors_;
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
  const int64_t first_token = TokenBlock(a) * Shape::kTokens;
  const int64_t first_row = PanelBlock(a) * Shape::kBlockPanels * kPanelRows;
  constexpr int kRows = Shape::kBlockPanels * 16;
  for (int i = static_cast<int>(threadIdx.x); i < kRows * Shape::kTokens; i += kMmaThreads) {
    const int row = i % kRows, token = i / kRows, panel = row / 16;
    if (first_row + row >= a.out.n || first_token + token >= a.out.m) continue;
    float sum = 0.0f;
#pragma unroll
    for (int split = 0; split < Shape::kSplit; ++split) {
      const int own = (panel / Shape::kPanels * Shape::kSplit + split) * Shape::kPanels + panel % Shape::kPanels;
      sum += shared[own * kPanelFloats + token * 16 + row % 16];
    }
    StoreSum(a.out, a.out.dtype, first_token + token, first_row + row, blockIdx.y, sum);
  }
}

// The chunks of a warp, and where its block begins.
struct ChunkShare {
  int block_begin, begin, end;
};

__device__ inline int ShareOf(int64_t count, int64_t part, int64_t parts) { return static_cast<int>(count * part / parts); }

template <class Source, class Shape>
__device__ inline ChunkShare OwnChunks(int64_t k) {
  const int64_t chunks = CeilDiv(CeilDiv(k, Source::kColumns), kChunkUnits);
  const int first = ShareOf(chunks, blockIdx.y, gridDim.y), count = ShareOf(chunks, blockIdx.y + 1, gridDim.y) - first;
  const int split = static_cast<int>(threadIdx.x) / 32 % Shape::kSplit;
  return {first, first + ShareOf(count, split, Shape::kSplit), first + ShareOf(count, split + 1, Shape::kSplit)};
}

// Opens this warp's panels at its first chunk: the warps that share a panel sum up what lies before their block, each a
// share of it, and their own chunks.
template <class Source, class Shape>
__device__ inline void OpenPanels(const typename Source::Weight& weight, const BitmapMmaArgs& a, const ChunkShare& chunks,
                                  Source (&source)[Shape::kPanels], unsigned char* shared) {
  constexpr int kPanels = Shape::kPanels, kSplit = Shape::kSplit;
  const int warp = static_cast<int>(threadIdx.x) / 32, split = warp % kSplit, begin = chunks.block_begin;
  const int64_t first_panel = PanelBlock(a) * Shape::kBlockPanels + warp / kSplit * kPanels;
  unsigned char* const ring = shared + warp * kPanels * Shape::kStages * Source::kStageBytes;
  unsigned char* const table = shared + kMmaWarps * kPanels * Shape::kStages * Source::kStageBytes;
  int* const sizes = reinterpret_cast<int*>(shared + BitmapMmaSharedBytes<Source, Shape>()) - Shape::kBlockPanels * kSplit * 2;
#pragma unroll
  for (int p = 0; p < kPanels; ++p) {
    // A panel past the last one repeats it; its rows are not stored.
    const int64_t panel = min(first_panel + p, NumPanels(a.out.n) - 1);
    source[p].Start(weight, panel, chunks.begin, chunks.end, ring + p * Shape::kStages * Source::kStageBytes, table);
    const int before = SizeOfChunks<Source>(weight, panel, ShareOf(begin, split, kSplit), ShareOf(begin, split + 1, kSplit));
    const int mine = SizeOfChunks<Source>(weight, panel, chunks.begin, chunks.end);
    int* const own = sizes + ((warp / kSplit * kPanels + p) * kSplit + split) * 2;
    if (threadIdx.x % 32 == 0) own[0] = before, own[1] = mine;
  }
  Source::FillTable(weight, table);
  __syncthreads();
#pragma unroll
  for (int p = 0; p < kPanels; ++p) {
    const int* const of_panel = sizes + (warp / kSplit * kPanels + p) * kSplit * 2;
    for (int other = 0; other < kSplit; ++other) source[p].at += of_panel[2 * other] + (other < split ? of_panel[2 * other + 1] : 0);
  }
}

// One block of 32 columns of the panels of a warp; `last`: of the warp.
template <class Source, class Half, class Shape>
__device__ inline void MultiplyBlock(const typename Source::Weight& weight, int block, bool last, const uint4 (&tokens)[Shape::kTiles],
                                     Source (&source)[Shape::kPanels], float (&sums)[Shape::kPanels][Shape::kTiles][4]) {
#pragma unroll
  for (int p = 0; p < Shape::kPanels; ++p) {
    uint32_t fragments[2][4];
    source[p].template Fragments<Half>(weight, block, fragments);
#pragma unroll
    for (int tile = 0; tile < Shape::kTiles; ++tile) {
      const uint32_t first[2] = {tokens[tile].x, tokens[tile].y}, second[2] = {tokens[tile].z, tokens[tile].w};
      Half::Multiply(source[p].Sums(sums[p], tile), fragments[0], first);
      Half::Multiply(source[p].Sums(sums[p], tile), fragments[1], second);
    }
    source[p].EndBlock(weight, last, sums[p]);
  }
}

template <class Source, class Half, class Shape>
__global__ void __launch_bounds__(kMmaThreads, BitmapMmaBlocks<Source, Shape>()) BitmapMmaKernel(typename Source::Weight weight, BitmapMmaArgs a) {
  PRISM_DYNAMIC_SMEM(shared);
  const ChunkShare chunks = OwnChunks<Source, Shape>(a.k);
  Source source[Shape::kPanels];
  OpenPanels<Source, Shape>(weight, a, chunks, source, shared);
  int issued = 0;
  const auto issue = [&](int chunk) {
    if (chunk < chunks.end) {
#pragma unroll
      for (int p = 0; p < Shape::kPanels; ++p) source[p].Issue(weight, issued);
      issued = (issued + 1) % Shape::kStages;
    }
    CopyAsyncCommit();
  };
  for (int ahead = 0; ahead < Shape::kStages - 1; ++ahead) issue(chunks.begin + ahead);
  TokenReader<Source, Half, Shape> reader(a, chunks.begin);
  float sums[Shape::kPanels][Shape::kTiles][4] = {};
  int stage = 0, blocks_left = static_cast<int>(NumBlocks32(a.k)) - chunks.begin * Source::kBlocks;
  for (int chunk = chunks.begin; chunk < chunks.end; ++chunk) {
    constexpr bool kAhead = Shape::kTiles <= 2;  // a chunk's activations are asked for before its weights are waited for
    const int blocks = min(Source::kBlocks, blocks_left);
    const bool last_chunk = chunk + 1 == chunks.end;
    typename TokenReader<Source, Half, Shape>::Chunk tokens;
    if constexpr (kAhead) reader.Load(blocks, tokens);
    CopyAsyncWait<Shape::kStages - 2>();
    __syncwarp();  // this chunk is there for all lanes, and all have read the one before
    issue(chunk + Shape::kStages - 1);
#pragma unroll
    for (int p = 0; p < Shape::kPanels; ++p) source[p].StartChunk(weight, stage);
    if constexpr (kAhead) {
#pragma unroll
      for (int block = 0; block < Source::kBlocks; ++block) {
        if (block >= blocks) break;
        reader.Scale(block, tokens);
        MultiplyBlock<Source, Half, Shape>(weight, block, last_chunk && block + 1 == blocks, tokens.x[block], source, sums);
      }
    } else {
      for (int block = 0; block < blocks; ++block) {
        reader.Load(block, true, tokens.x[0]);
        MultiplyBlock<Source, Half, Shape>(weight, block, last_chunk && block + 1 == blocks, tokens.x[0], source, sums);
      }
    }
    reader.Advance();
    stage = (stage + 1) % Shape::kStages;
    blocks_left -= Source::kBlocks;
  }
  CopyAsyncWait<0>();
  FinishBlock<Shape>(a, sums, reinterpret_cast<float*>(shared));
}

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
  if (splits == 1) a.out.partial = nullptr;
  a.token_blocks = static_cast<unsigned>(CeilDiv(a.out.m, Shape::kTokens));
  const int64_t panel_blocks = CeilDiv(NumPanels(a.out.n), Shape::kBlockPanels);
  const dim3 grid(static_cast<unsigned>(panel_blocks * a.token_blocks), static_cast<unsigned>(splits));
  const cudaError_t error = Launch(BitmapMmaKernel<Source, Half, Shape>, grid, kMmaThreads, BitmapMmaSharedBytes<Source, Shape>(), stream, weight, a);
  return error != cudaSuccess || splits == 1 ? error : AddSplits(a.out, splits, stream);
}

}  // namespace prism::cuda
