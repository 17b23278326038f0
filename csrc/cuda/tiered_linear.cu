// One launch for all tiers. A block takes a panel and up to 16 tokens; its warps take blocks of 32 columns (two tiles) in turn,
// and their sums are added in the order of the warps.
//
// 16-bit x and values of the same dtype: tensor cores. A warp copies the survivors and masks of a block to shared memory,
// kDepth blocks ahead; a lane expands its four bits of each pair of columns into the fragments of common/panel_mma.cuh (rows
// 2g and 2g + 1, columns 8t..8t+7), a dense tile being a full mask. Bound: the bytes of the weight; about 120 instructions
// for 512 weights of at most 1088 bytes.
// Otherwise a plain kernel, not tuned.
#include "tiered_linear.cuh"

#include "common/panel_mma.cuh"
#include "common/tiered.cuh"

namespace prism::cuda {
namespace {

constexpr int kDepth = 4;
constexpr int kBlockValueBytes = 2 * kTileValues * 2 + 32;  // two full tiles, and what alignment to 16 bytes adds
constexpr int kSlotBytes = kBlockValueBytes + 2 * kTileMaskBytes;
constexpr int kSumStride = 17;
constexpr int kPlainResident = 4;  // blocks per multiprocessor that registers are spent for; left free, the compiler spills
constexpr int kPlainTokens = kTileThreads / static_cast<int>(kPanelRows);

__device__ void Store(const TieredBlocks& w, const TieredLinearArgs& a, int64_t token, int64_t row, float sum) {
  if (token >= a.m || row >= w.n) return;
  if (a.bias != nullptr) sum += LoadFloat(a.bias, a.dtype, row);
  StoreFloat(sum, a.y, a.dtype, token * w.n + row);
}

// One warp's blocks of a chunk of tiles, through its own slots of shared memory.
template <class Arithmetic, int kTiles>
class TieredWarp {
 public:
  __device__ TieredWarp(const TieredBlocks& w, const TieredLinearArgs& a, const PanelTiles& tiles, int64_t first_token,
                        bool x_aligned, unsigned char* slots)
      : w_(w), a_(a), tiles_(tiles), first_token_(first_token), x_aligned_(x_aligned), slots_(slots) {}

  // The tiles of an open chunk, from tile `first` of the panel on.
  __device__ void Run(int64_t first, int count, float (&sums)[kTiles][4]) {
    const int blocks = (count + 1) / 2, warp = static_cast<int>(threadIdx.x) / 32;
    for (int i = 0; i + 1 < kDepth; ++i) Copy(warp + i * kTileWarps, blocks, i);
    int slot = 0;
    for (int block = warp; block < blocks; block += kTileWarps) {
      uint4 x[kTiles];
#pragma unroll
      for (int j = 0; j < kTiles; ++j) x[j] = LoadX(first * kTileColumns + block * kBlockColumns, j);
      Copy(block + (kDepth - 1) * kTileWarps, blocks, (slot + kDepth - 1) % kDepth);
      CopyAsyncWait<kDepth - 1>();
      __syncwarp();
      const DenseFragment fragment = Decode(block, slot);
#pragma unroll
      for (int j = 0; j < kTiles; ++j) {
        const uint32_t b[4] = {x[j].x, x[j].y, x[j].z, x[j].w};
        fragment.template Multiply<Arithmetic>(sums[j], b);
      }
      slot = (slot + 1) % kDepth;
    }
    CopyAsyncWait<0>();
  }

 private:
  __device__ uint4 LoadX(int64_t column, int j) const {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const int64_t token = first_token_ + 8 * j + lane / 4;
    if (token >= a_.m) return make_uint4(0, 0, 0, 0);
    return LoadEightOfRow(static_cast<const uint16_t*>(a_.x) + token * w_.k, column + lane % 4 * 8, w_.k, x_aligned_);
  }

  // Where the values of a block begin, in bytes.
  __device__ int64_t ValueBytes(int block) const { return tiles_.Value(tiles_.Place(2 * block)) * 2; }

  __device__ int Skew(int64_t at) const { return static_cast<int>((reinterpret_cast<uintptr_t>(w_.values) + at) % 16); }

  // Begins the copies of a block; every call closes a group, also past the end.
  __device__ void Copy(int block, int blocks, int slot) {
    __syncwarp();  // the slot has been read
    if (block < blocks) {
      const int lane = static_cast<int>(threadIdx.x) % 32;
      unsigned char* const to = slots_ + slot * kSlotBytes;
      const int64_t begin = ValueBytes(block), end = tiles_.Value(tiles_.Place(2 * block + 2)) * 2, size = w_.num_values * 2;
      const auto* const from = static_cast<const uint8_t*>(w_.values) + begin;
      const int skew = Skew(begin), length = skew + static_cast<int>(end - begin);
      for (int at = 16 * lane; at < length; at += 16 * 32) {
        const int64_t left = size - begin + skew - at;  // in the stream; nothing past its end is read
        const bool live = left > 0 && size > begin;
        CopyAsync16(to + at, live ? from - skew + at : w_.masks, live ? static_cast<int>(min(left, int64_t{16})) : 0);
      }
      if (lane < 4) {
        const TilePlace place = tiles_.Place(2 * block + lane / 2);
        unsigned char* const words = to + kBlockValueBytes + 16 * lane;
        if (place.mask >= 0) {
          CopyAsync16(words, tiles_.Mask(place) + lane % 2 * 16);
        } else {
          const uint32_t full = place.mask == kDenseTile ? ~0u : 0u;
          *reinterpret_cast<uint4*>(words) = make_uint4(full, full, full, full);
        }
      }
    }
    CopyAsyncCommit();
  }

  __device__ DenseFragment Decode(int block, int slot) const {
    const int lane = static_cast<int>(threadIdx.x) % 32, g = lane / 4, t = lane % 4;
    const unsigned char* const from = slots_ + slot * kSlotBytes;
    const int begin = (tiles_.Place(2 * block + t / 2).values - tiles_.Place(2 * block).values) * 2;
    const auto* const values = reinterpret_cast<const uint16_t*>(from + Skew(ValueBytes(block)) + begin);
    const HalfMask mask(reinterpret_cast<const uint4*>(from + kBlockValueBytes)[t], t % 2 != 0);
    DenseFragment fragment;
    uint32_t low = 0;
    mask.ForBits<4>(4 * g, [&](int j, int bit, int position) {
      const uint32_t value = position >= 0 ? values[position] : 0u;
      if (bit % 2 == 0) low = value;
      if (bit % 2 == 1) fragment.a[j / 2][j % 2 * 2 + bit / 2] = low | value << 16;
    });
    return fragment;
  }

  const TieredBlocks& w_;
  const TieredLinearArgs& a_;
  const PanelTiles& tiles_;
  const int64_t first_token_;
  const bool x_aligned_;
  unsigned char* const slots_;
};

// Grid: x: panels, y: groups of 8 * kTiles tokens. Shared memory: the places of tiles, then slots, which then hold sums.
template <class Arithmetic, int kTiles>
__global__ void __launch_bounds__(kTileThreads) TieredMmaKernel(TieredBlocks w, TieredLinearArgs a, bool x_aligned) {
  PRISM_DYNAMIC_SMEM(shared);
  constexpr int kTokens = 8 * kTiles;
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32, g = lane / 4, t = lane % 4;
  const int64_t panel = blockIdx.x, first_token = static_cast<int64_t>(blockIdx.y) * kTokens;
  unsigned char* const slots = shared + (PanelTiles::kSharedBytes + 15) / 16 * 16;
  PanelTiles tiles(w, panel, shared);
  TieredWarp<Arithmetic, kTiles> work(w, a, tiles, first_token, x_aligned, slots + warp * kDepth * kSlotBytes);
  float sums[kTiles][4] = {};
  for (int64_t first = 0; first < w.Tiles(); first += kTileChunk) {
    const int count = tiles.Open(first);
    work.Run(first, count, sums);
  }
  __syncthreads();
  auto* const kept = reinterpret_cast<float*>(slots);  // [warps, tokens, kSumStride]
#pragma unroll
  for (int j = 0; j < kTiles; ++j) {
#pragma unroll
    for (int i = 0; i < 4; ++i) kept[(warp * kTokens + 8 * j + 2 * t + i % 2) * kSumStride + 2 * g + i / 2] = sums[j][i];
  }
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < kTokens * static_cast<int>(kPanelRows); i += kTileThreads) {
    const int token = i / static_cast<int>(kPanelRows), row = i % static_cast<int>(kPanelRows);
    float sum = 0.0f;
    for (int other = 0; other < kTileWarps; ++other) sum += kept[(other * kTokens + token) * kSumStride + row];
    Store(w, a, first_token + token, panel * kPanelRows + row, sum);
  }
}

// Grid: x: panels, y: groups of kPlainTokens tokens; a thread has a row and a token, and a tile is decoded by all threads.
__global__ void __launch_bounds__(kTileThreads, kPlainResident) TieredPlainKernel(TieredBlocks w, TieredLinearArgs a) {
  PRISM_DYNAMIC_SMEM(shared);
  constexpr int kRows = static_cast<int>(kPanelRows);
  const int64_t panel = blockIdx.x, token = static_cast<int64_t>(blockIdx.y) * kPlainTokens + threadIdx.x / kRows;
  const int row = static_cast<int>(threadIdx.x) % kRows, column = static_cast<int>(threadIdx.x) / kRows;  // that it decodes
  auto* const decoded = reinterpret_cast<float*>(shared + (PanelTiles::kSharedBytes + 15) / 16 * 16);
  PanelTiles tiles(w, panel, shared);
  float sum = 0.0f;
  for (int64_t first = 0; first < w.Tiles(); first += kTileChunk) {
    const int count = tiles.Open(first);
    for (int tile = 0; tile < count; ++tile) {
      const TilePlace place = tiles.Place(tile);
      if (place.mask == kEmptyTile) continue;  // all threads alike
      int64_t position = tiles.Value(place) + 32 * (column / 2) + 2 * row + column % 2;
      bool kept = true;
      if (place.mask >= 0) {
        const auto* const words = reinterpret_cast<const uint32_t*>(tiles.Mask(place));
        const int bit = 2 * row + column % 2;
        const uint32_t word = words[column / 2];
        kept = (word >> bit & 1u) != 0;
        position = tiles.Value(place) + __popc(word & ((1u << bit) - 1u));
        for (int j = 0; j < column / 2; ++j) position += __popc(words[j]);
      }
      decoded[column * kRows + row] = kept && position < w.num_values ? LoadFloat(w.values, w.dtype, position) : 0.0f;
      __syncthreads();
      for (int c = 0; c < kTileColumns && token < a.m; ++c) {
        const int64_t at = (first + tile) * kTileColumns + c;
        if (at < w.k) sum = __fmaf_rn(decoded[c * kRows + row], LoadFloat(a.x, a.dtype, token * w.k + at), sum);
      }
      __syncthreads();
    }
  }
  Store(w, a, token, panel * kPanelRows + row, sum);
}

template <class Arithmetic, int kTiles>
cudaError_t LaunchMma(const TieredBlocks& w, const TieredLinearArgs& a, cudaStream_t stream) {
  const size_t shared = (PanelTiles::kSharedBytes + 15) / 16 * 16 + kTileWarps * kDepth * kSlotBytes;
  static_assert(kTileWarps * 8 * kTiles * kSumStride * 4 <= kTileWarps * kDepth * kSlotBytes, "sums fit where slots were");
  const bool x_aligned = w.k % 8 == 0 && reinterpret_cast<uintptr_t>(a.x) % 16 == 0;
  const dim3 grid(static_cast<unsigned>(NumPanels(w.n)), static_cast<unsigned>(CeilDiv(a.m, int64_t{8} * kTiles)));
  return Launch(TieredMmaKernel<Arithmetic, kTiles>, grid, kTileThreads, shared, stream, w, a, x_aligned);
}

cudaError_t LaunchPart(const TieredBlocks& w, const TieredLinearArgs& a, cudaStream_t stream) {
  if (a.dtype == w.dtype && a.dtype == DType::kBFloat16) {
    return a.m <= 8 ? LaunchMma<BFloat16Arithmetic, 1>(w, a, stream) : LaunchMma<BFloat16Arithmetic, 2>(w, a, stream);
  }
  if (a.dtype == w.dtype && a.dtype == DType::kFloat16) {
    return a.m <= 8 ? LaunchMma<Float16Arithmetic, 1>(w, a, stream) : LaunchMma<Float16Arithmetic, 2>(w, a, stream);
  }
  const size_t shared = (PanelTiles::kSharedBytes + 15) / 16 * 16 + kTileValues * 4;
  const dim3 grid(static_cast<unsigned>(NumPanels(w.n)), static_cast<unsigned>(CeilDiv(a.m, kPlainTokens)));
  return Launch(TieredPlainKernel, grid, kTileThreads, shared, stream, w, a);
}

}  // namespace

cudaError_t TieredLinear(const TieredBlocks& weight, const TieredLinearArgs& args, cudaStream_t stream) {
  if (weight.n == 0) return cudaSuccess;
  constexpr int64_t kMostTokens = int64_t{65535} * 8;  // of a grid's y
  for (int64_t first = 0; first < args.m; first += kMostTokens) {
    TieredLinearArgs part = args;
    part.x = static_cast<const char*>(args.x) + first * weight.k * DTypeBytes(args.dtype);
    part.y = static_cast<char*>(args.y) + first * weight.n * DTypeBytes(args.dtype);
    part.m = min(args.m - first, kMostTokens);
    if (const cudaError_t error = LaunchPart(weight, part, stream); error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

}  // namespace prism::cuda
