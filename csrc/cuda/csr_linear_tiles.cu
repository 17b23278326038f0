// A block makes 32 rows of y for up to 64 tokens. It walks along k in chunks of columns: its 8 warps scatter the survivors of
// 4 rows each into a cleared tile [32, chunk] in shared memory, and after one barrier the same warps multiply that tile with
// mma.m16n8k16, 2 panels of 16 rows x 4 parts of the chunk; the parts are added in order at the end. Tiles alternate between
// two buffers, and the survivors of the next chunk are loaded before this one is multiplied. Needs columns that rise in each
// row, and finite x: a tile multiplies pruned weights as zeros.
//
// Why tiles and not gathers: a survivor costs about 8 instructions of a lane (its two halves of words, three comparisons, a
// 2-byte store) whatever the number of tokens, where a gather costs more than one per token. A lane stores pairs of
// neighbours, 4 bytes of each stream: at half the weights kept, lanes then lie 2 words apart, a store takes about 2 clocks;
// with 16-byte loads it would be 8 words and up to 8 clocks. Rows of unequal length: each row takes a window of survivors
// that fits its own mean per chunk, and goes on with another where that was too short; what a whole row costs more than an
// empty one is bounded by the width of a chunk.
//
// Bounds, calculated for 14336x4096 at 4.3 TB/s, not measured: 4 bytes per survivor are 27 us at 50 %, 16 at 70 %, 5.5 at
// 90 % (dense bf16: 27); beside it 1/4 instruction of a warp per survivor and 1/9 per weight of the tile, 15, 12 and 9 us of
// issue slots. Up to 16 tokens: about the time of dense at 50 %, 1.3 times as fast at 70 %, 2 times at 90 %; cuSPARSE reads
// 6 bytes per survivor and gathers. 64 tokens: 235 MB of x from the second cache, about 40 us at any density. 256: the
// survivors are read four times; unpacking and a dense product take over before (crossovers.json).
#include "csr_linear_tiles.cuh"

#include "common/ptx.cuh"
#include "pad_activations.cuh"

namespace prism::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int kRowsPerWarp = 4;
constexpr int kRows = kWarps * kRowsPerWarp;  // of a tile
constexpr int kPanels = kRows / 16;
constexpr int kParts = kWarps / kPanels;     // of a chunk, each multiplied by a warp
constexpr int kChunkUnit = 32 * kParts;
constexpr int kMostChunk = 512;              // two buffers then take 68 KB, and three blocks share a multiprocessor
constexpr int kMostTokens = 64;
constexpr int kSteps = 4;                    // pairs of survivors that a lane holds of a row
constexpr int kStepSurvivors = 64;           // of a warp
constexpr int kSurvivorsPerChunk = 192;      // of a mean row: a window of 4 steps then holds it with 6 sigma to spare
constexpr int kSumStride = kRows + 1;
constexpr unsigned kAll = 0xffffffffu;
// Row-split gathers cost a clock per 16 bytes of 8 tokens, 2 per survivor; a tile about 1/32 per weight, survivor or not.
constexpr int64_t kWeightsPerGather = 64;
constexpr int64_t kFarthest = int64_t{1} << 30;  // survivors of a warp's rows, from the first on

// Elements, not bytes. 64 bytes more than a multiple of 128: 16-byte loads of two neighbouring rows then share no bank.
__device__ __host__ inline int TileStride(int chunk) { return chunk + 32; }

// Where a row goes on and ends, counted from the even place where the warp's survivors begin.
struct Cursor {
  int next, end;
  int steps;  // of a window
};

// Lane r holds the cursor of row r: in every lane, four of them would take the registers of windows.
__device__ Cursor CursorOf(const Cursor& mine, int row) {
  return {__shfl_sync(kAll, mine.next, row), __shfl_sync(kAll, mine.end, row), __shfl_sync(kAll, mine.steps, row)};
}

struct Streams {
  const uint16_t* values;
  const void* columns;
};

// The survivors of a row from its cursor on, or from one before.
template <bool kWide>
struct Window {
  uint32_t values[kSteps];
  uint32_t columns[kWide ? 2 * kSteps : kSteps];

  __device__ uint32_t Column(int step, int half) const {
    if constexpr (kWide) return columns[2 * step + half];
    return half == 0 ? columns[step] & 0xffffu : columns[step] >> 16;
  }

  __device__ void Load(const Streams& from, const Cursor& row, int lane) {
    const int lane_first = (row.next & ~1) + 2 * lane;
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      const int at = lane_first + kStepSurvivors * step;
      values[step] = 0;
      if constexpr (kWide) {
        columns[2 * step] = columns[2 * step + 1] = 0;
      } else {
        columns[step] = 0;
      }
      if (step >= row.steps || at >= row.end) continue;
      const bool pair = at + 1 < row.end;
      values[step] = pair ? __ldg(reinterpret_cast<const uint32_t*>(from.values + at)) : __ldg(from.values + at);
      if constexpr (kWide) {
        const auto* columns32 = static_cast<const uint32_t*>(from.columns) + at;
        if (pair) {
          const uint2 both = __ldg(reinterpret_cast<const uint2*>(columns32));
          columns[2 * step] = both.x, columns[2 * step + 1] = both.y;
        } else {
          columns[2 * step] = __ldg(columns32);
        }
      } else {
        const auto* columns16 = static_cast<const uint16_t*>(from.columns) + at;
        columns[step] = pair ? __ldg(reinterpret_cast<const uint32_t*>(columns16)) : __ldg(columns16);
      }
    }
  }

  // Of a window loaded at `row`. Stores what lies in columns [begin, begin + chunk) to the row of a tile; returns how many the warp stored.
  __device__ int Scatter(const Cursor& row, uint32_t begin, uint32_t chunk, uint16_t* tile_row, int lane) const {
    int stored = 0;
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      if (step >= row.steps) continue;
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int at = (row.next & ~1) + kStepSurvivors * step + 2 * lane + half;
        const uint32_t column = Column(step, half) - begin;
        if (at < row.next || at >= row.end || column >= chunk) continue;
        tile_row[column] = static_cast<uint16_t>(values[step] >> 16 * half);
        ++stored;
      }
    }
    return __reduce_add_sync(kAll, stored);
  }
};

__device__ int Clamp(int64_t value) { return static_cast<int>(min(max(value, int64_t{0}), kFarthest)); }

// Where the survivors of this warp's rows begin, and the cursor of this lane's row; rows past n are empty.
__device__ Streams FindRows(const CsrRows& w, int64_t first_row, int chunk, int lane, Cursor& mine) {
  const auto offset = [&](int64_t row) { return w.Offset(min(row, w.n)); };
  const int64_t origin = offset(first_row) & ~int64_t{1}, row = first_row + min(lane, kRowsPerWarp - 1);
  mine.next = Clamp(offset(row) - origin);
  mine.end = max(Clamp(offset(row + 1) - origin), mine.next);
  const float mean = static_cast<float>(mine.end - mine.next) * static_cast<float>(chunk) / static_cast<float>(w.k);
  mine.steps = 1 + static_cast<int>(min((1.25f * mean + 16.0f) / kStepSurvivors, kSteps - 1.0f));
  const auto* columns = static_cast<const char*>(w.columns) + origin * (w.wide_columns ? 4 : 2);
  return {static_cast<const uint16_t*>(w.values) + origin, columns};
}

// Clears this warp's rows of a tile, fills them with the survivors of columns [begin, begin + chunk), and loads those that
// follow.
template <bool kWide>
__device__ void FillRows(const Streams& streams, Cursor& mine, Window<kWide> (&windows)[kRowsPerWarp], uint32_t begin, int chunk,
                         uint16_t* tile, int lane) {
  const int stride = TileStride(chunk);
#pragma unroll
  for (int r = 0; r < kRowsPerWarp; ++r) {
#pragma unroll 1
    for (int i = 8 * lane; i < chunk; i += 256) *reinterpret_cast<uint4*>(tile + r * stride + i) = make_uint4(0, 0, 0, 0);
  }
  __syncwarp();
#pragma unroll
  for (int r = 0; r < kRowsPerWarp; ++r) {
    Cursor row = CursorOf(mine, r);
    for (;;) {
      const int stored = windows[r].Scatter(row, begin, static_cast<uint32_t>(chunk), tile + r * stride, lane);
      const int window_end = (row.next & ~1) + kStepSurvivors * row.steps;
      row.next += stored;
      windows[r].Load(streams, row, lane);  // of the next chunk, unless the window ended before this one
      if (stored == 0 || row.next != window_end) break;
    }
    if (lane == r) mine.next = row.next;
  }
}

template <DType kDType>
__device__ void Mma(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  if constexpr (kDType == DType::kFloat16) {
    MmaFp16(d, a, b);
  } else {
    MmaBf16(d, a, b);
  }
}

// x of up to 8 * kTiles tokens from `first` on.
struct Tokens {
  const uint16_t* x;  // [m, stride]
  int64_t stride;     // a multiple of 8, and x aligned to 16 bytes
  int64_t first, m;
};

// sums += panel [16, chunk] x tokens, this warp's part of the chunk. Columns are permuted alike in both: lane t takes
// 8t..8t+7 of 32, the fragments of two steps of 16.
template <DType kDType, int kTiles>
__device__ void Multiply(const uint16_t* panel, int chunk, int part, int64_t begin, const Tokens& tokens, float (&sums)[kTiles][4]) {
  const int g = static_cast<int>(threadIdx.x) % 32 / 4, t = static_cast<int>(threadIdx.x) % 4;
  const int stride = TileStride(chunk);
  const int64_t left = tokens.m - tokens.first - g;
  constexpr int kBatch = kTiles < 4 ? kTiles : 4;  // 16-byte loads of x at once; more would spill
#pragma unroll (4 / kBatch)
  for (int block = part; block < chunk / 32; block += kParts) {
    const int64_t column = begin + 32 * block + 8 * t;
    const bool inside = column < tokens.stride;
    const uint16_t* const from = tokens.x + (tokens.first + g) * tokens.stride + column;
    const uint16_t* const at = panel + g * stride + 32 * block + 8 * t;
    const uint4 upper = *reinterpret_cast<const uint4*>(at), lower = *reinterpret_cast<const uint4*>(at + 8 * stride);
    const uint32_t low[4] = {upper.x, lower.x, upper.y, lower.y}, high[4] = {upper.z, lower.z, upper.w, lower.w};
#pragma unroll
    for (int first = 0; first < kTiles; first += kBatch) {
      uint4 x[kBatch];
#pragma unroll
      for (int i = 0; i < kBatch; ++i) {
        const int token = 8 * (first + i);
        x[i] = make_uint4(0, 0, 0, 0);
        if (inside && token < left) x[i] = __ldg(reinterpret_cast<const uint4*>(from + token * tokens.stride));
      }
#pragma unroll
      for (int i = 0; i < kBatch; ++i) {
        const uint32_t b0[2] = {x[i].x, x[i].y}, b1[2] = {x[i].z, x[i].w};
        Mma<kDType>(sums[first + i], low, b0);
        Mma<kDType>(sums[first + i], high, b1);
      }
    }
  }
}

// Adds the parts in order and stores [tokens, rows].
template <int kTiles>
__device__ void Finish(const CsrLinearArgs& a, int64_t n, int64_t first_row, int64_t first_token, const float (&sums)[kTiles][4],
                       float* shared) {
  constexpr int kTokens = 8 * kTiles;
  const int warp = static_cast<int>(threadIdx.x) / 32, panel = warp % kPanels, part = warp / kPanels;
  const int g = static_cast<int>(threadIdx.x) % 32 / 4, t = static_cast<int>(threadIdx.x) % 4;
  __syncthreads();  // the last tile was read
#pragma unroll
  for (int tile = 0; tile < kTiles; ++tile) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int row = 16 * panel + g + 8 * (i / 2), token = 8 * tile + 2 * t + i % 2;
      shared[(part * kTokens + token) * kSumStride + row] = sums[tile][i];
    }
  }
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < kTokens * kRows; i += kThreads) {
    const int64_t row = first_row + i % kRows, token = first_token + i / kRows;
    if (row >= n || token >= a.m) continue;
    float sum = 0.0f;
#pragma unroll
    for (int p = 0; p < kParts; ++p) sum += shared[(p * kTokens + i / kRows) * kSumStride + i % kRows];
    if (a.bias != nullptr) sum += LoadFloat(a.bias, a.dtype, row);
    StoreFloat(sum, a.y, a.dtype, token * n + row);
  }
}

// Two blocks per multiprocessor; columns of 32 bits, which only matrices of more than 65536 columns have, leave room for one.
// Grid: tiles of rows, and within each tiles of tokens, so that blocks that read the same survivors run together.
template <DType kDType, bool kWide, int kTiles>
__global__ void __launch_bounds__(kThreads, kWide ? 1 : 2) CsrTilesKernel(CsrRows w, CsrLinearArgs a, int64_t x_stride, int token_tiles, int chunk) {
  PRISM_DYNAMIC_SMEM(shared);
  auto* const tiles = reinterpret_cast<uint16_t*>(shared);
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32, stride = TileStride(chunk);
  const int64_t first_row = static_cast<int64_t>(blockIdx.x / token_tiles) * kRows;
  const Tokens tokens = {static_cast<const uint16_t*>(a.x), x_stride,
                         static_cast<int64_t>(blockIdx.x % token_tiles) * 8 * kTiles, a.m};
  Cursor mine;
  const Streams streams = FindRows(w, first_row + warp * kRowsPerWarp, chunk, lane, mine);
  Window<kWide> windows[kRowsPerWarp];
#pragma unroll
  for (int r = 0; r < kRowsPerWarp; ++r) windows[r].Load(streams, CursorOf(mine, r), lane);
  float sums[kTiles][4] = {};
  int buffer = 0;
  for (int64_t begin = 0; begin < w.k; begin += chunk) {
    uint16_t* const tile = tiles + buffer * kRows * stride;
    FillRows(streams, mine, windows, static_cast<uint32_t>(begin), chunk, tile + warp * kRowsPerWarp * stride, lane);
    // The buffer that comes next was read before every warp came here.
    __syncthreads();
    Multiply<kDType, kTiles>(tile + warp % kPanels * 16 * stride, chunk, warp / kPanels, begin, tokens, sums);
    buffer ^= 1;
  }
  Finish<kTiles>(a, w.n, first_row, tokens.first, sums, reinterpret_cast<float*>(shared));
}

bool ReadsInPlace(const void* x, int64_t k) { return k % 8 == 0 && reinterpret_cast<uintptr_t>(x) % 16 == 0; }
int64_t PaddedColumns(int64_t k) { return CeilDiv(k, int64_t{8}) * 8; }

template <DType kDType, bool kWide, int kTiles>
cudaError_t LaunchTiles(const CsrRows& w, const CsrLinearArgs& a, int64_t x_stride, cudaStream_t stream) {
  const int64_t wanted = kSurvivorsPerChunk * w.n * w.k / max(w.num_values, int64_t{1}) / kChunkUnit * kChunkUnit;
  const int64_t most = min(CeilDiv(w.k, int64_t{kChunkUnit}) * kChunkUnit, int64_t{kMostChunk});
  const auto chunk = static_cast<int>(max(min(wanted, most), int64_t{kChunkUnit}));
  const size_t tiles = size_t{2} * kRows * static_cast<size_t>(TileStride(chunk)) * 2;
  const size_t sums = size_t{kParts} * 8 * kTiles * kSumStride * sizeof(float);
  const int64_t token_tiles = CeilDiv(a.m, int64_t{8 * kTiles});
  const auto grid = static_cast<unsigned>(CeilDiv(w.n, int64_t{kRows}) * token_tiles);
  return Launch(CsrTilesKernel<kDType, kWide, kTiles>, grid, kThreads, max(tiles, sums), stream, w, a, x_stride,
                static_cast<int>(token_tiles), chunk);
}

template <DType kDType, bool kWide>
cudaError_t LaunchTokens(const CsrRows& w, const CsrLinearArgs& a, int64_t x_stride, cudaStream_t stream) {
  if (a.m <= 8) return LaunchTiles<kDType, kWide, 1>(w, a, x_stride, stream);
  if (a.m <= 16) return LaunchTiles<kDType, kWide, 2>(w, a, x_stride, stream);
  if (a.m <= 32) return LaunchTiles<kDType, kWide, 4>(w, a, x_stride, stream);
  return LaunchTiles<kDType, kWide, kMostTokens / 8>(w, a, x_stride, stream);
}

template <DType kDType>
cudaError_t LaunchColumns(const CsrRows& w, const CsrLinearArgs& a, int64_t x_stride, cudaStream_t stream) {
  return w.wide_columns ? LaunchTokens<kDType, true>(w, a, x_stride, stream) : LaunchTokens<kDType, false>(w, a, x_stride, stream);
}

}  // namespace

bool CsrTilesServe(const CsrRows& weight, int64_t m, DType dtype) {
  const auto aligned16 = [](const void* at) { return reinterpret_cast<uintptr_t>(at) % 16 == 0; };
  const bool fits = weight.dtype == dtype && dtype != DType::kFloat32 && aligned16(weight.values) && aligned16(weight.columns);
  return fits && m > 1 && weight.num_values * CeilDiv(m, int64_t{8}) * kWeightsPerGather >= weight.n * weight.k;
}

int64_t CsrTilesWorkspace(const CsrRows& weight, const void* x, int64_t m) {
  return ReadsInPlace(x, weight.k) ? 0 : m * PaddedColumns(weight.k) / 2;
}

cudaError_t CsrLinearTiles(const CsrRows& weight, const CsrLinearArgs& args, cudaStream_t stream) {
  CsrLinearArgs a = args;
  int64_t x_stride = weight.k;
  if (!ReadsInPlace(args.x, weight.k)) {
    x_stride = PaddedColumns(weight.k);
    auto* const padded = reinterpret_cast<uint16_t*>(args.workspace);
    const cudaError_t error = PadActivations(args.x, args.dtype, nullptr, args.m, weight.k, x_stride, padded, stream);
    if (error != cudaSuccess) return error;
    a.x = padded;
  }
  if (args.dtype == DType::kFloat16) return LaunchColumns<DType::kFloat16>(weight, a, x_stride, stream);
  return LaunchColumns<DType::kBFloat16>(weight, a, x_stride, stream);
}

}  // namespace prism::cuda
