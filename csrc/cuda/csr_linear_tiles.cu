// A block makes 32 rows of y, or 16, for up to 64 tokens. It walks along k in chunks of columns: its 8 warps scatter the
// survivors of 4 rows each, or 2, into a cleared tile [rows, chunk] in shared memory, and after one barrier the same warps
// multiply that tile with mma.m16n8k16, panels of 16 rows x parts of the chunk; the parts are added in order at the end. 32
// rows read x half as often; 16 are for few tokens and matrices that would not fill the GPU otherwise. Tiles alternate between
// two buffers, and the survivors of the next chunk are loaded before this one is multiplied. Needs columns that rise in each
// row, and finite x: a tile multiplies pruned weights as zeros.
//
// Why tiles and not gathers: a survivor costs 9 instructions of a lane (SASS of sm_90: its halves of two words, two
// comparisons, a 2-byte store, a count) whatever the number of tokens, where a gather costs more than one per token. A lane
// stores pairs of neighbours, 4 bytes of each stream: at half the weights kept, lanes then lie 2 words apart and a store takes
// about 2 clocks; with 16-byte loads it would be 8 words and up to 8 clocks. Rows of unequal length: each row takes a window
// of survivors that fits its own mean per chunk, and goes on with another where that was too short; what a whole row costs
// more than an empty one is bounded by the width of a chunk.
//
// Bounds, calculated for 14336x4096 on an H200 at 4.3 TB/s, not measured. Bytes: 4 per survivor, 27 us at 50 %, 16 at 70 %,
// 5.5 at 90 % (dense bf16: 27). Issue slots: about 120 instructions of a warp per row and chunk of 192 survivors, 75 where a
// chunk of 512 columns has fewer than 80, and 32 per 1024 weights of the product: 22, 17 and 11 us. So up to 16 tokens about
// the time of dense at 50 %, 1.6 times as fast at 70 %, 2.4 times at 90 %; cuSPARSE reads 6 bytes per survivor and gathers.
// 64 tokens: 235 MB of x from the second cache, about 40 us at any density. 256: the survivors are read four times; unpacking
// and a dense product take over before (crossovers.json).
#include "csr_linear_tiles.cuh"

#include "common/ptx.cuh"
#include "pad_activations.cuh"

namespace prism::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int kChunkUnit = 128;
constexpr int kMostChunk = 512;              // two buffers of 32 rows then take 68 KB
constexpr int kMostTokens = 64;
constexpr int kSteps = 4;                    // pairs of survivors that a lane holds of a row
constexpr int kStepSurvivors = 64;           // of a warp
constexpr int kSurvivorsPerChunk = 192;      // of a mean row: a window of 4 steps holds it with 6 sigma to spare
constexpr int kFewTokens = 16;               // up to which tiles of 16 rows are made
constexpr unsigned kAll = 0xffffffffu;
// Row-split gathers cost a clock per 16 bytes of 8 tokens, 2 per survivor; a tile about 1/32 per weight, survivor or not.
constexpr int64_t kWeightsPerGather = 64;
constexpr int64_t kFarthest = int64_t{1} << 30;  // survivors of a warp's rows, from the first on

// A block's tile: the rows that each warp fills, the panels and the parts of a chunk that each warp multiplies.
template <int kRowsPerWarp_>
struct Tile {
  static constexpr int kRowsPerWarp = kRowsPerWarp_;
  static constexpr int kRows = kWarps * kRowsPerWarp;
  static constexpr int kPanels = kRows / 16;
  static constexpr int kParts = kWarps / kPanels;
  static constexpr int kSumStride = kRows + 1;
};

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
  uint32_t values[kSteps] = {};
  uint32_t columns[kWide ? 2 * kSteps : kSteps] = {};

  __device__ uint32_t Column(int step, int half) const {
    if constexpr (kWide) return columns[2 * step + half];
    return half == 0 ? columns[step] & 0xffffu : columns[step] >> 16;
  }

  __device__ void Load(const Streams& from, const Cursor& row, int lane) {
    const int first = row.next & ~1;
    if (first + kStepSurvivors * row.steps <= row.end) {  // every window of a row but its last: no lane has to compare
#pragma unroll
      for (int step = 0; step < kSteps; ++step) {
        if (step < row.steps) LoadPair(from, first + kStepSurvivors * step + 2 * lane, step);
      }
      return;
    }
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      const int at = first + kStepSurvivors * step + 2 * lane;
      if (step < row.steps && at + 1 < row.end) LoadPair(from, at, step);
      if (step < row.steps && at + 1 == row.end) LoadLast(from, at, step);
    }
  }

  __device__ void LoadPair(const Streams& from, int at, int step) {
    values[step] = __ldg(reinterpret_cast<const uint32_t*>(from.values + at));
    if constexpr (kWide) {
      const uint2 both = __ldg(reinterpret_cast<const uint2*>(static_cast<const uint32_t*>(from.columns) + at));
      columns[2 * step] = both.x, columns[2 * step + 1] = both.y;
    } else {
      columns[step] = __ldg(reinterpret_cast<const uint32_t*>(static_cast<const uint16_t*>(from.columns) + at));
    }
  }

  // The last survivor of a row; what would be its neighbour may lie past the stream.
  __device__ void LoadLast(const Streams& from, int at, int step) {
    values[step] = __ldg(from.values + at);
    if constexpr (kWide) {
      columns[2 * step] = __ldg(static_cast<const uint32_t*>(from.columns) + at);
    } else {
      columns[step] = __ldg(static_cast<const uint16_t*>(from.columns) + at);
    }
  }

  // Of a window loaded at `row`: stores what lies in columns [begin, begin + chunk) to a row of a tile, and returns how many
  // the warp stored.
  __device__ int Scatter(const Cursor& row, uint32_t begin, uint32_t chunk, SharedAddress tile_row, int lane) const {
    // Of this lane's first survivor behind the cursor; -1, which is none of the row, where the window begins one before it.
    const int behind = 2 * lane - (row.next & 1);
    const auto left = static_cast<uint32_t>(row.end - row.next);
    int stored = 0;
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      if (step >= row.steps) continue;
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const uint32_t column = Column(step, half) - begin;
        if (static_cast<uint32_t>(behind + kStepSurvivors * step + half) >= left || column >= chunk) continue;
        StoreShared2(tile_row, 2 * column, static_cast<uint16_t>(values[step] >> 16 * half));
        ++stored;
      }
    }
    return __reduce_add_sync(kAll, stored);
  }
};

__device__ int Clamp(int64_t value) { return static_cast<int>(min(max(value, int64_t{0}), kFarthest)); }

// Where the survivors of this warp's rows begin, and the cursor of this lane's row; rows past n are empty.
__device__ Streams FindRows(const CsrRows& w, int64_t first_row, int num_rows, int chunk, int lane, Cursor& mine) {
  const auto offset = [&](int64_t row) { return w.Offset(min(row, w.n)); };
  const int64_t origin = offset(first_row) & ~int64_t{1}, row = first_row + min(lane, num_rows - 1);
  mine.next = Clamp(offset(row) - origin);
  mine.end = max(Clamp(offset(row + 1) - origin), mine.next);
  const float chunks = static_cast<float>(max(w.k, int64_t{1})) / static_cast<float>(chunk);
  const float mean = static_cast<float>(mine.end - mine.next) / chunks;
  mine.steps = 1 + static_cast<int>(min((1.25f * mean + 16.0f) / kStepSurvivors, kSteps - 1.0f));
  const auto* columns = static_cast<const char*>(w.columns) + origin * (w.wide_columns ? 4 : 2);
  return {static_cast<const uint16_t*>(w.values) + origin, columns};
}

// Clears this warp's rows of a tile, fills them with the survivors of columns [begin, begin + chunk), and loads those that
// follow.
template <bool kWide, int kRowsPerWarp>
__device__ void FillRows(const Streams& streams, Cursor& mine, Window<kWide> (&windows)[kRowsPerWarp], uint32_t begin, int chunk,
                         uint16_t* tile, int lane) {
  const int stride = TileStride(chunk);
#pragma unroll
  for (int r = 0; r < kRowsPerWarp; ++r) {
#pragma unroll 1
    for (int i = 8 * lane; i < chunk; i += 256) *reinterpret_cast<uint4*>(tile + r * stride + i) = make_uint4(0, 0, 0, 0);
  }
  __syncwarp();
  const SharedAddress first_row = ToShared(tile);
#pragma unroll
  for (int r = 0; r < kRowsPerWarp; ++r) {
    const SharedAddress tile_row = first_row + 2 * r * stride;
    Cursor row = CursorOf(mine, r);
    for (;;) {
      const int stored = windows[r].Scatter(row, begin, static_cast<uint32_t>(chunk), tile_row, lane);
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
template <DType kDType, int kParts, int kTiles>
__device__ void Multiply(const uint16_t* panel, int chunk, int part, int64_t begin, const Tokens& tokens,
                         float (&sums)[kTiles][4]) {
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
template <class T, int kTiles>
__device__ void Finish(const CsrLinearArgs& a, int64_t n, int64_t first_row, int64_t first_token, const float (&sums)[kTiles][4],
                       float* shared) {
  constexpr int kTokens = 8 * kTiles;
  const int warp = static_cast<int>(threadIdx.x) / 32, panel = warp % T::kPanels, part = warp / T::kPanels;
  const int g = static_cast<int>(threadIdx.x) % 32 / 4, t = static_cast<int>(threadIdx.x) % 4;
  __syncthreads();  // the last tile was read
#pragma unroll
  for (int tile = 0; tile < kTiles; ++tile) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int row = 16 * panel + g + 8 * (i / 2), token = 8 * tile + 2 * t + i % 2;
      shared[(part * kTokens + token) * T::kSumStride + row] = sums[tile][i];
    }
  }
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < kTokens * T::kRows; i += kThreads) {
    const int64_t row = first_row + i % T::kRows, token = first_token + i / T::kRows;
    if (row >= n || token >= a.m) continue;
    float sum = 0.0f;
#pragma unroll
    for (int p = 0; p < T::kParts; ++p) sum += shared[(p * kTokens + i / T::kRows) * T::kSumStride + i % T::kRows];
    if (a.bias != nullptr) sum += LoadFloat(a.bias, a.dtype, row);
    StoreFloat(sum, a.y, a.dtype, token * n + row);
  }
}

// Two blocks per multiprocessor; columns of 32 bits, which only matrices of more than 65536 columns have, leave room for one.
// Grid: tiles of rows, and within each tiles of tokens, so that blocks that read the same survivors run together.
template <DType kDType, bool kWide, int kRowsPerWarp, int kTiles>
__global__ void __launch_bounds__(kThreads, kWide ? 1 : 2)
    CsrTilesKernel(CsrRows w, CsrLinearArgs a, int64_t x_stride, int token_tiles, int chunk) {
  using T = Tile<kRowsPerWarp>;
  PRISM_DYNAMIC_SMEM(shared);
  auto* const tiles = reinterpret_cast<uint16_t*>(shared);
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32, stride = TileStride(chunk);
  const int64_t first_row = static_cast<int64_t>(blockIdx.x / token_tiles) * T::kRows;
  const Tokens tokens = {static_cast<const uint16_t*>(a.x), x_stride,
                         static_cast<int64_t>(blockIdx.x % token_tiles) * 8 * kTiles, a.m};
  Cursor mine;
  const Streams streams = FindRows(w, first_row + warp * kRowsPerWarp, kRowsPerWarp, chunk, lane, mine);
  Window<kWide> windows[kRowsPerWarp];
#pragma unroll
  for (int r = 0; r < kRowsPerWarp; ++r) windows[r].Load(streams, CursorOf(mine, r), lane);
  float sums[kTiles][4] = {};
  int buffer = 0;
  for (int64_t begin = 0; begin < w.k; begin += chunk) {
    uint16_t* const tile = tiles + buffer * T::kRows * stride;
    FillRows(streams, mine, windows, static_cast<uint32_t>(begin), chunk, tile + warp * kRowsPerWarp * stride, lane);
    // The buffer that comes next was read before every warp came here.
    __syncthreads();
    const uint16_t* const panel = tile + warp % T::kPanels * 16 * stride;
    Multiply<kDType, T::kParts>(panel, chunk, warp / T::kPanels, begin, tokens, sums);
    buffer ^= 1;
  }
  Finish<T>(a, w.n, first_row, tokens.first, sums, reinterpret_cast<float*>(shared));
}

bool ReadsInPlace(const void* x, int64_t k) { return k % 8 == 0 && reinterpret_cast<uintptr_t>(x) % 16 == 0; }
int64_t PaddedColumns(int64_t k) { return CeilDiv(k, int64_t{8}) * 8; }

template <DType kDType, bool kWide, int kRowsPerWarp, int kTiles>
cudaError_t LaunchTiles(const CsrRows& w, const CsrLinearArgs& a, int64_t x_stride, cudaStream_t stream) {
  using T = Tile<kRowsPerWarp>;
  const int64_t wanted = kSurvivorsPerChunk * w.n * w.k / max(w.num_values, int64_t{1}) / kChunkUnit * kChunkUnit;
  const int64_t most = min(CeilDiv(w.k, int64_t{kChunkUnit}) * kChunkUnit, int64_t{kMostChunk});
  const auto chunk = static_cast<int>(max(min(wanted, most), int64_t{kChunkUnit}));
  const size_t tiles = size_t{2} * T::kRows * static_cast<size_t>(TileStride(chunk)) * 2;
  const size_t sums = size_t{T::kParts} * 8 * kTiles * T::kSumStride * sizeof(float);
  const int64_t token_tiles = CeilDiv(a.m, int64_t{8 * kTiles});
  const auto grid = static_cast<unsigned>(CeilDiv(w.n, int64_t{T::kRows}) * token_tiles);
  return Launch(CsrTilesKernel<kDType, kWide, kRowsPerWarp, kTiles>, grid, kThreads, max(tiles, sums), stream, w, a, x_stride,
                static_cast<int>(token_tiles), chunk);
}

template <DType kDType, bool kWide, int kRowsPerWarp>
cudaError_t LaunchTokens(const CsrRows& w, const CsrLinearArgs& a, int64_t x_stride, cudaStream_t stream) {
  if (a.m <= 8) return LaunchTiles<kDType, kWide, kRowsPerWarp, 1>(w, a, x_stride, stream);
  if (a.m <= kFewTokens) return LaunchTiles<kDType, kWide, kRowsPerWarp, 2>(w, a, x_stride, stream);
  constexpr int kMostRows = kWide ? 2 : 4;  // per warp; wide columns take the registers of more
  if (a.m <= 32) return LaunchTiles<kDType, kWide, kMostRows, 4>(w, a, x_stride, stream);
  return LaunchTiles<kDType, kWide, kMostRows, kMostTokens / 8>(w, a, x_stride, stream);
}

template <DType kDType>
cudaError_t LaunchColumns(const CsrRows& w, const CsrLinearArgs& a, int64_t x_stride, cudaStream_t stream) {
  if (w.wide_columns) return LaunchTokens<kDType, true, 2>(w, a, x_stride, stream);
  // Two blocks are resident on a multiprocessor: with one, its barriers and loads would be all that it waits for.
  const bool fills = CeilDiv(w.n, int64_t{Tile<4>::kRows}) >= int64_t{2} * NumMultiprocessors();
  return fills ? LaunchTokens<kDType, false, 4>(w, a, x_stride, stream) : LaunchTokens<kDType, false, 2>(w, a, x_stride, stream);
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
