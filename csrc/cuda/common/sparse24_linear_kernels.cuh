// y [m, n] = x [m, k] @ weight^T + bias over a 2:4 weight in the order of sparse tensor cores, for any source of operand A
// (sparse24_mma.cuh). Weights are read once for every 64 tokens; what limits is their bytes, 9 bits per weight for 16-bit
// values (at best 1.78 times the dense product) and 3.3 for codes (g = 64; 4.8 times).
//
// Up to 8 tokens: a block takes 2 panels, its warps split the tiles of k between them and fetch the next two while they
// multiply one; their sums are added in the order of the warps. More tokens: a block takes 8 panels x up to 64 tokens and a
// part of k, two groups of 4 warps share its tiles; activations pass through shared memory, where their quads take the order
// that the weights have. Parts of k are written as float32 and added in order.
//
// Expected bound, not measured: memory at every m up to 64; the second kernel holds one block of 8 warps per multiprocessor
// at 64 tokens, up to 36 KiB of weights under way.
#pragma once
#include "linear_output.cuh"
#include "sparse24_mma.cuh"

namespace prism::cuda {

inline constexpr int kSparseFewTokens = 8;
inline constexpr int kSparseFewPanels = 2, kMostFewWarps = 16;
inline constexpr int kTiledThreads = 256, kTiledPanels = 8, kTiledTokens = 64;
inline constexpr int kStageRow = kSparseTileColumns + 8;  // padded: 8 rows of ldmatrix then fall into different banks

using SparseFewSums = BlockSums<kSparseFewPanels, kSparseFewTokens>;

// One long body: what it prefetches, multiplies and adds lives in the same registers.
template <class Source>
__global__ void __launch_bounds__(32 * kMostFewWarps)
    Sparse24FewTokensKernel(Source source, SparseActivations in, LinearOutput out, int64_t panels) {
  using Arithmetic = typename Source::Arithmetic;
  PRISM_DYNAMIC_SMEM(shared);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
  const int64_t panel = static_cast<int64_t>(blockIdx.x) * kSparseFewPanels, last = panels - 1;
  float sums[kSparseFewPanels][4] = {};
  struct Stage {
    typename Source::Tile tiles[kSparseFewPanels];
    uint4 x[2], column_scale[2];
  };
  const auto load = [&](int64_t tile) {
    Stage stage;
#pragma unroll
    for (int i = 0; i < kSparseFewPanels; ++i) stage.tiles[i] = source.Load(min(panel + i, last), tile, lane);
#pragma unroll
    for (int step = 0; step < 2; ++step) {
      const int64_t column = tile * kSparseTileColumns + step * kSparseStepColumns + 8 * (lane % 4);
      stage.x[step] = LoadActivations(in, lane / 4, column);
      if (Source::kScaled) stage.column_scale[step] = LoadEightOfRow(in.column_scale, column, in.k, in.vectors);
    }
    return stage;
  };
  // Multiplies a stage and refills it with the tile after next, so that nearly two stages are always under way.
  const auto consume = [&](Stage& now, int64_t tile) {
    if (tile >= source.tiles) return;
    uint32_t b[2][4];
#pragma unroll
    for (int step = 0; step < 2; ++step) {
      const uint4 x = Source::kScaled ? ScaleEight<Arithmetic>(now.x[step], now.column_scale[step]) : now.x[step];
      ExchangeHalves(x, b[step]);
    }
#pragma unroll
    for (int i = 0; i < kSparseFewPanels; ++i) {
      uint32_t a[2][4];
#pragma unroll
      for (int step = 0; step < 2; ++step) Source::Decode(now.tiles[i], step, lane, a[step]);
      MultiplyTile<Source>(sums[i], now.tiles[i], a, b);
    }
    if (tile + 2 * warps < source.tiles) now = load(tile + 2 * warps);
  };
  Stage even, odd;
  if (warp < source.tiles) even = load(warp);
  if (warp + warps < source.tiles) odd = load(warp + warps);
  for (int64_t tile = warp; tile < source.tiles; tile += 2 * warps) {
    consume(even, tile);
    consume(odd, tile + warps);
  }
  auto* const kept = reinterpret_cast<float*>(shared);
#pragma unroll
  for (int i = 0; i < kSparseFewPanels; ++i) SparseFewSums::Keep(kept + warp * SparseFewSums::kWarpFloats, i, 0, sums[i]);
  __syncthreads();
  SparseFewSums::Finish(out, Arithmetic::kDType, kept, warps, 0, panel * kPanelRows);
}

// Shared memory of the kernel below: two stages of two tiles of activations; later the sums of the second group of warps.
template <int kTokenTiles>
constexpr size_t TiledSharedBytes() {
  const size_t stages = 2 * 2 * 8 * kTokenTiles * kStageRow * sizeof(uint16_t), sums = 4 * 2 * kTokenTiles * 32 * sizeof(float4);
  return stages > sums ? stages : sums;
}

// One long body: all of its parts live in the same registers, up to 254 of them for codes and 64 tokens.
template <class Source, int kTokenTiles>
__global__ void __launch_bounds__(kTiledThreads)
    Sparse24TiledKernel(Source source, SparseActivations in, LinearOutput out, int64_t panels, int64_t tiles_per_split) {
  using Arithmetic = typename Source::Arithmetic;
  constexpr int kTokens = 8 * kTokenTiles, kChunks = kTokenTiles / 2;
  constexpr int kStage = 2 * kTokens * kStageRow;  // elements
  PRISM_DYNAMIC_SMEM(shared);
  auto* const staged = reinterpret_cast<uint16_t*>(shared);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, half = warp / 4;
  const int64_t panel = static_cast<int64_t>(blockIdx.x) * kTiledPanels + warp % 4 * 2, last = panels - 1;
  const int64_t first_token = static_cast<int64_t>(blockIdx.z) * kTokens;
  const int64_t begin = blockIdx.y * tiles_per_split, end = min(begin + tiles_per_split, source.tiles);
  // This thread brings 8 columns of every 16th token of one of the two tiles of a stage.
  const int chunk = threadIdx.x % 8, chunk_tile = threadIdx.x / 8 % 2, chunk_token = threadIdx.x / 16;
  uint4 x[kChunks], column_scale = make_uint4(0, 0, 0, 0);
  const auto load_activations = [&](int64_t tile) {
    const int64_t column = (tile + chunk_tile) * kSparseTileColumns + 8 * chunk;
    const int64_t limit = tile + chunk_tile < end ? in.m : 0;
#pragma unroll
    for (int i = 0; i < kChunks; ++i) {
      const int64_t token = first_token + chunk_token + 16 * i;
      x[i] = token < limit ? LoadActivations(in, token, column) : make_uint4(0, 0, 0, 0);
    }
    if (Source::kScaled) column_scale = LoadEightOfRow(in.column_scale, column, in.k, in.vectors);
  };
  struct Weights {
    typename Source::Tile tiles[2];
  };
  const auto load_weights = [&](int64_t tile) {  // a tile past the end has activations of 0
    Weights weights;
#pragma unroll
    for (int i = 0; i < 2; ++i) weights.tiles[i] = source.Load(min(panel + i, last), min(tile + half, end - 1), lane);
    return weights;
  };
  const auto store = [&](uint16_t* stage) {
    // Quads 2 c and 2 c + 1 of a step of 32 columns go where the weights have them: 4 (c % 2) + c / 2, and 2 further on.
    const int at = chunk / 4 * kSparseStepColumns + 4 * (chunk % 2 * 4 + chunk % 4 / 2);
#pragma unroll
    for (int i = 0; i < kChunks; ++i) {
      const uint4 scaled = Source::kScaled ? ScaleEight<Arithmetic>(x[i], column_scale) : x[i];
      uint16_t* const row = stage + (chunk_tile * kTokens + chunk_token + 16 * i) * kStageRow + at;
      *reinterpret_cast<uint2*>(row) = make_uint2(scaled.x, scaled.y);
      *reinterpret_cast<uint2*>(row + 8) = make_uint2(scaled.z, scaled.w);
    }
  };
  float sums[2][kTokenTiles][4] = {};
  // Multiplies one stage; every thread of the block comes here alike. Activations are fetched one stage ahead, weights two.
  const auto consume = [&](Weights& now, int64_t tile, int parity) {
    if (tile >= end) return;
    const bool more = tile + 2 < end;
    if (more) load_activations(tile + 2);
    uint32_t a[2][2][4];
#pragma unroll
    for (int i = 0; i < 4; ++i) Source::Decode(now.tiles[i / 2], i % 2, lane, a[i / 2][i % 2]);
    const uint16_t* const rows = staged + parity * kStage + (half * kTokens + lane % 8) * kStageRow + lane / 8 * 8;
#pragma unroll
    for (int j = 0; j < kTokenTiles; ++j) {
      uint32_t b[2][4];
      LoadMatrix4(b[0], rows + 8 * j * kStageRow);
      LoadMatrix4(b[1], rows + 8 * j * kStageRow + kSparseStepColumns);
      MultiplyTile<Source>(sums[0][j], now.tiles[0], a[0], b);
      MultiplyTile<Source>(sums[1][j], now.tiles[1], a[1], b);
    }
    if (tile + 4 < end) now = load_weights(tile + 4);
    if (more) store(staged + (parity ^ 1) * kStage);
    __syncthreads();
  };
  Weights even, odd;
  if (begin < end) {
    even = load_weights(begin);
    if (begin + 2 < end) odd = load_weights(begin + 2);
    load_activations(begin);
    store(staged);
  }
  __syncthreads();
  for (int64_t tile = begin; tile < end; tile += 4) {
    consume(even, tile, 0);
    consume(odd, tile + 2, 1);
  }
  auto* const others = reinterpret_cast<float4*>(shared) + warp % 4 * 2 * kTokenTiles * 32 + lane;
#pragma unroll
  for (int i = 0; i < 2 * kTokenTiles; ++i) {
    const float(&own)[4] = sums[i / kTokenTiles][i % kTokenTiles];
    if (half == 1) others[i * 32] = make_float4(own[0], own[1], own[2], own[3]);
  }
  __syncthreads();
  if (half == 1) return;
#pragma unroll
  for (int i = 0; i < 2 * kTokenTiles; ++i) {
    float(&own)[4] = sums[i / kTokenTiles][i % kTokenTiles];
    const float4 other = others[i * 32];
    own[0] = __fadd_rn(own[0], other.x), own[1] = __fadd_rn(own[1], other.y);
    own[2] = __fadd_rn(own[2], other.z), own[3] = __fadd_rn(own[3], other.w);
    StoreSums(out, Arithmetic::kDType, own, first_token + i % kTokenTiles * 8, (panel + i / kTokenTiles) * kPanelRows, blockIdx.y);
  }
}

// Into how many parts k is split: as many blocks as multiprocessors hold at once (registers allow two of up to 32 tokens, one
// of 64), and at least 8 tiles to each.
inline int SparseSplits(int64_t m, int64_t n, int64_t k) {
  if (m <= kSparseFewTokens) return 1;
  const int64_t blocks = CeilDiv(NumPanels(n), kTiledPanels) * CeilDiv(m, kTiledTokens), tiles = NumSparseTiles(k);
  const int64_t resident = (m <= kTiledTokens / 2 ? 2 : 1) * NumMultiprocessors(), wanted = resident / max(blocks, int64_t{1});
  return static_cast<int>(max(min(wanted, tiles / 8), int64_t{1}));
}

template <class Source, int kTokenTiles>
cudaError_t LaunchTiled(const Source& source, const SparseActivations& in, const LinearOutput& out, int splits,
                        cudaStream_t stream) {
  const int64_t panels = NumPanels(out.n);
  const int64_t tiles = CeilDiv(CeilDiv(source.tiles, splits), 2) * 2;  // of a split
  const dim3 grid(static_cast<unsigned>(CeilDiv(panels, kTiledPanels)), static_cast<unsigned>(splits),
                  static_cast<unsigned>(CeilDiv(out.m, 8 * kTokenTiles)));
  return Launch(Sparse24TiledKernel<Source, kTokenTiles>, grid, kTiledThreads, TiledSharedBytes<kTokenTiles>(), stream, source,
                in, out, panels, tiles);
}

// out.partial: PartialFloats(SparseSplits(m, n, k), m, n). m, n and k are at least 1.
template <class Source>
cudaError_t RunSparseLinear(const Source& source, const SparseActivations& in, LinearOutput out, cudaStream_t stream) {
  const int64_t panels = NumPanels(out.n);
  if (in.m <= kSparseFewTokens) {
    const int64_t blocks = CeilDiv(panels, kSparseFewPanels);
    const int warps = blocks >= 2 * NumMultiprocessors() ? kMostFewWarps / 2 : kMostFewWarps;
    return Launch(Sparse24FewTokensKernel<Source>, static_cast<unsigned>(blocks), 32 * warps,
                  warps * SparseFewSums::kWarpFloats * sizeof(float), stream, source, in, out, panels);
  }
  const int splits = SparseSplits(in.m, out.n, in.k);
  if (splits == 1) out.partial = nullptr;
  cudaError_t error;
  if (in.m <= 16) {
    error = LaunchTiled<Source, 2>(source, in, out, splits, stream);
  } else if constexpr (Source::kGroups == 2) {  // 64 tokens and the scales of two groups are more than the registers hold
    error = LaunchTiled<Source, 4>(source, in, out, splits, stream);
  } else if (in.m <= 32) {
    error = LaunchTiled<Source, 4>(source, in, out, splits, stream);
  } else {
    error = LaunchTiled<Source, 8>(source, in, out, splits, stream);
  }
  return error != cudaSuccess || splits == 1 ? error : AddSplits(out, splits, stream);
}

}  // namespace prism::cuda
