// One launch for all tiers. A block takes a panel and up to 32 tokens; its warps take neighbouring tiles, shares of about as
// many bytes each (PanelTiles::Share), and their sums are added in the order of the warps.
//
// 16-bit x and values of the same dtype: tensor cores, a k16 step for a tile. The values of a share are one range of the stream
// and pass through a ring of shared memory, copied 16 bytes per lane and up to 2 KB ahead; x and masks are read one tile ahead.
// Lane (g = lane / 4, t = lane % 4) takes rows 2g and 2g + 1 of the pairs of columns t and t + 4 of operand A, and the same
// pairs of x. Instructions of a warp per tile, 256 weights, up to 8 tokens (SASS of sm_90), its part of the copies included:
//   dense  61   two reads of 8 bytes are the fragment; 72 where the tile begins at an odd place: four reads, two shifts each
//   2:4    87   of each pair of columns the four values from the lane's first one on, spread by byte permutations that a table
//               of 16 masks gives
//   top-k  79   the same, by a shorter stream
//   empty  20
// that is 76 for the mixture 35/45/20 %, whose 320 bytes leave time for 67 at the 4.3 TB/s of an H200: bound by instructions,
// at best 1.4 times the dense product. Not measured. To find the tiles of a chunk costs 5 more at k = 16384, 19 at k = 4096.
// Otherwise a plain kernel, not tuned.
#include "tiered_linear.cuh"

#include "common/panel_mma.cuh"
#include "common/tiered.cuh"
#include "pad_activations.cuh"

namespace prism::cuda {
namespace {

constexpr int kSegmentVectors = 2, kSegmentBytes = kSegmentVectors * 16 * 32, kSegments = 4, kRingBytes = kSegments * kSegmentBytes;
constexpr int kWarpBytes = kRingBytes + 16;
static_assert(2 * kTileValues + 16 <= kSegmentBytes && kSegments >= 4, "a tile lies in two segments");
constexpr int kTableBytes = 16 * 8;
constexpr int kPlainResident = 4;  // blocks per multiprocessor that registers are spent for; left free, the compiler spills
constexpr int kPlainTokens = kTileThreads / static_cast<int>(kPanelRows);

// By the mask of two columns of two rows: for each row the selectors of its pair among the bytes of four values, of which the
// last is 0 unless all four are kept. The upper half of the first is the mask of that value.
__device__ void FillTable(unsigned char* table) {
  const uint32_t mask = threadIdx.x;
  if (mask >= 16) return;
  uint32_t selectors[2] = {mask == 15 ? 0xffff0000u : 0u, 0}, next = 0;
  for (uint32_t bit = 0; bit < 4; ++bit) {
    const bool kept = (mask >> bit & 1u) != 0;
    selectors[bit / 2] |= (kept ? 0x10u + 0x22u * next : 0x76u) << 8 * (bit % 2);
    next += kept;
  }
  reinterpret_cast<uint2*>(table)[mask] = make_uint2(selectors[0], selectors[1]);
}

struct TieredMmaArgs {
  const uint16_t* x;
  int64_t x_stride;  // elements between rows of x: whole tiles, 0 past k
  LinearOutput out;
};

// One warp's share of a chunk of tiles. Its values are one range of the stream, which passes through a ring of shared memory
// in segments of 16 bytes per lane; places are ints, in bytes from the aligned vector in which the range begins.
template <class Arithmetic, int kTiles>
class TieredWarp {
 public:
  __device__ TieredWarp(const TieredBlocks& w, const TieredMmaArgs& a, const PanelTiles& tiles, int64_t first_token,
                        unsigned char* shared, uint32_t ring, const unsigned char* table)
      : w_(w), tiles_(tiles), shared_(shared), ring_(Kept(ring)), table_(table) {
    const uint32_t lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    rotation_ = Kept(4 * g - 3);  // eight times the four bits of a lane: an offset in the table
    below_ = Kept((1u << 4 * g) - 1);
    start_ = Kept(t);
    dense_ = Kept(64 * t + 8 * g);
#pragma unroll
    for (int j = 0; j < kTiles; ++j) {  // lanes of tokens past m read the last one: no output of theirs is stored
      rows_[j] = a.x + min(first_token + 8 * j + g, a.out.m - 1) * a.x_stride + 2 * t;
    }
  }

  // The warp's share of an open chunk that begins with tile `first` of the panel.
  __device__ void Run(int64_t first, int begin, int end, float (&sums)[kTiles][4]) {
    if (begin == end) return;
    OpenMasks(begin);
#pragma unroll
    for (int j = 0; j < kTiles; ++j) x_[j] = reinterpret_cast<const uint32_t*>(rows_[j] + (first + begin) * kTileColumns);
    const int origin = OpenValues(begin, end);
    uint2 next[kTiles];
    LoadX(next);
    for (int tile = begin; tile < end; ++tile) {
      const TilePlace place = tiles_.Place(tile);
      const uint32_t at = static_cast<uint32_t>(2 * place.values - origin);
      const int stop = 2 * tiles_.Place(tile + 1).values - origin;
      uint2 x[kTiles];
#pragma unroll
      for (int j = 0; j < kTiles; ++j) x[j] = next[j];
      if (tile + 1 < end) LoadX(next);
      if (place.mask == kEmptyTile) continue;
#pragma unroll 1
      while (stop > ready_) Advance();
      uint32_t fragment[4];
      if (place.mask == kDenseTile) {
        ReadDense(at, fragment);
      } else {
        Spread(at, place, fragment);
        NextMask();
      }
#pragma unroll
      for (int j = 0; j < kTiles; ++j) {
        Arithmetic::Multiply(sums[j], fragment, {x[j].x, x[j].y});
      }
    }
    CopyAsyncWait<0>();
  }

 private:
  // `value`, held in a register: the compiler would rather compute such constants of a lane anew for every tile.
  static __device__ uint32_t Kept(uint32_t value) { return __shfl_sync(0xffffffffu, value, static_cast<int>(threadIdx.x % 32)); }

  // Pairs of columns t and t + 4 of x, of one tile after the other, one tile ahead.
  __device__ void LoadX(uint2 (&x)[kTiles]) {
#pragma unroll
    for (int j = 0; j < kTiles; ++j) {
      x[j] = make_uint2(__ldg(x_[j]), __ldg(x_[j] + 4));
      x_[j] += kTileColumns / 2;
    }
  }

  // ---- masks: words of this lane's pairs of columns, one tile with a mask ahead
  __device__ void OpenMasks(int begin) {
    const int64_t index = tiles_.MaskIndex(tiles_.Place(begin));
    mask_at_ = reinterpret_cast<const uint32_t*>(w_.masks + index * kTileMaskBytes) + threadIdx.x % 4;
    masks_left_ = static_cast<int>(min(w_.num_masks - index, int64_t{kTileChunk}));
    if (masks_left_ > 0) mask_[0] = __ldg(mask_at_), mask_[1] = __ldg(mask_at_ + 4);
  }

  __device__ void NextMask() {
    mask_at_ += kTileMaskBytes / 4;
    if (--masks_left_ > 0) mask_[0] = __ldg(mask_at_), mask_[1] = __ldg(mask_at_ + 4);
  }

  // ---- values
  // Returns what places of the chunk, in bytes, are counted from.
  __device__ int OpenValues(int begin, int end) {
    const int64_t first = tiles_.Value(tiles_.Place(begin));
    const auto* const values = static_cast<const uint8_t*>(w_.values) + 2 * first;
    const int skew = static_cast<int>(reinterpret_cast<uintptr_t>(values) % 16), origin = 2 * tiles_.Place(begin).values - skew;
    constexpr int64_t kFar = 1 << 30;
    stop_ = 2 * tiles_.Place(end).values - origin;
    limit_ = static_cast<int>(max(min(2 * (w_.num_values - first) + skew, kFar), int64_t{0}));
    whole_ = stop_ + 15 <= limit_;
    copied_ = 16 * static_cast<int>(threadIdx.x % 32);
    from_ = values - skew + copied_;
    ready_ = 0;
#pragma unroll 1
    for (int i = 0; i < kSegments - 2; ++i) Copy();
    return origin;
  }

  // Makes one segment more ready. The tile that asks for it begins in the segment before it at the earliest: those before
  // that one have been read.
  __device__ void Advance() {
    __syncwarp();
    Copy();
    CopyAsyncWait<kSegments - 2>();
    __syncwarp();
    ready_ += kSegmentBytes;
  }

  // Begins the copy of a segment; every call closes a group, also past the end.
  __device__ void Copy() {
    const uint32_t slot = static_cast<uint32_t>(copied_) % kRingBytes;
    unsigned char* const ring = shared_ + ring_;
    if (whole_) {
#pragma unroll
      for (int i = 0; i < kSegmentVectors; ++i) {
        if (copied_ + 512 * i < stop_) CopyAsync16(ring + slot + 512 * i, from_ + 512 * i);
      }
      if (slot == 0 && copied_ < stop_) CopyAsync16(ring + kRingBytes, from_);  // for reads across the end of the ring
    } else {
      for (int i = 0; i < kSegmentVectors; ++i) CopyInside(ring + slot + 512 * i, i);
      if (slot == 0) CopyInside(ring + kRingBytes, 0);
    }
    CopyAsyncCommit();
    from_ += kSegmentBytes;
    copied_ += kSegmentBytes;
  }

  // Nothing past the end of the stream is read, it is 0.
  __device__ void CopyInside(unsigned char* to, int vector) const {
    const int at = copied_ + 512 * vector, bytes = min(max(limit_ - at, 0), 16);
    if (at < stop_) CopyAsync16(to, bytes > 0 ? from_ + 512 * vector : w_.masks, bytes);
  }

  // Of a dense tile, whose pairs of columns are 64 bytes each.
  __device__ void ReadDense(uint32_t at, uint32_t (&fragment)[4]) const {
    const uint32_t first = at + dense_, second = first + 256;
    if (at % 8 == 0) {
      const uint2 low = *reinterpret_cast<const uint2*>(shared_ + (ring_ + first % kRingBytes));
      const uint2 high = *reinterpret_cast<const uint2*>(shared_ + (ring_ + second % kRingBytes));
      fragment[0] = low.x, fragment[1] = low.y, fragment[2] = high.x, fragment[3] = high.y;
      return;
    }
    ReadFour(first, fragment[0], fragment[1]);
    ReadFour(second, fragment[2], fragment[3]);
  }

  // The four values from `at` on, a multiple of 2.
  __device__ void ReadFour(uint32_t at, uint32_t& low, uint32_t& high) const {
    const auto* const words = reinterpret_cast<const uint32_t*>(shared_ + (ring_ + (at & (kRingBytes - 4))));
    const uint32_t shift = 8 * at;  // modulo 32
    low = __funnelshift_r(words[0], words[1], shift), high = __funnelshift_r(words[1], words[2], shift);
  }

  // Of a tile with a mask.
  __device__ void Spread(uint32_t at, const TilePlace& place, uint32_t (&fragment)[4]) const {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const uint32_t mask = mask_[i];
      // Byte 0 of the counts is 0, and so fills the upper bytes.
      const uint32_t start = Permute(place.before[0], place.before[1], start_ + 4 * i) + static_cast<uint32_t>(__popc(mask & below_));
      uint32_t low, high;
      ReadFour(at + 2 * start, low, high);
      const uint2 entry = *reinterpret_cast<const uint2*>(table_ + (__funnelshift_r(mask, mask, rotation_) & 120u));
      high &= entry.x | 0xffffu;
      fragment[2 * i] = Permute(low, high, entry.x);
      fragment[2 * i + 1] = Permute(low, high, entry.y);
    }
  }

  const TieredBlocks& w_;
  const PanelTiles& tiles_;
  unsigned char* const shared_;
  const uint32_t ring_;  // in shared_
  const unsigned char* const table_;
  uint32_t rotation_, below_, start_, dense_;  // start_: byte of the counts of the lane's first pair; dense_: its place
  const uint16_t* rows_[kTiles];
  const uint32_t* x_[kTiles];  // of the next tile
  const uint32_t* mask_at_;
  uint32_t mask_[2] = {0, 0};
  int masks_left_;
  const uint8_t* from_;  // of this lane in the segment that is copied next
  int copied_, ready_, stop_, limit_;  // copied_: place of from_; stop_: of the end of the share, limit_: of the stream's
  bool whole_;                         // all vectors of the share lie in the stream
};

// Grid: x: panels, y: groups of 8 * kTiles tokens. Shared memory: the places of tiles, the table, then rings, which then hold
// sums.
template <class Arithmetic, int kTiles>
__global__ void __launch_bounds__(kTileThreads, kTiles > 2 ? 2 : 3) TieredMmaKernel(TieredBlocks w, TieredMmaArgs a) {
  PRISM_DYNAMIC_SMEM(shared);
  constexpr int kTokens = 8 * kTiles;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int64_t panel = blockIdx.x, first_token = static_cast<int64_t>(blockIdx.y) * kTokens;
  unsigned char* const table = shared + (PanelTiles::kSharedBytes + 15) / 16 * 16;
  unsigned char* const rings = table + kTableBytes;
  FillTable(table);
  PanelTiles tiles(w, panel, shared);
  TieredWarp<Arithmetic, kTiles> work(w, a, tiles, first_token, rings, static_cast<uint32_t>(warp * kWarpBytes), table);
  float sums[kTiles][4] = {};
  for (int64_t first = 0; first < w.Tiles(); first += kTileChunk) {
    tiles.Open(first);
    work.Run(first, tiles.ShareBegin(warp), tiles.ShareBegin(warp + 1), sums);
  }
  __syncthreads();
  using Sums = BlockSums<1, kTokens>;
  static_assert(Sums::kWarpFloats * 4 <= kWarpBytes, "sums fit where rings were");
  auto* const kept = reinterpret_cast<float*>(rings);
#pragma unroll
  for (int j = 0; j < kTiles; ++j) Sums::Keep(kept + warp * Sums::kWarpFloats, 0, j, sums[j]);
  __syncthreads();
  Sums::Finish(a.out, Arithmetic::kDType, kept, kTileWarps, first_token, panel * kPanelRows);
}

PRISM_HOST_DEVICE inline LinearOutput OutputOf(const TieredBlocks& w, const TieredLinearArgs& a) {
  return {a.y, a.bias, nullptr, nullptr, a.dtype, a.m, w.n};
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
  if (token < a.m && panel * kPanelRows + row < w.n) FinishOutput(OutputOf(w, a), a.dtype, token, panel * kPanelRows + row, sum);
}

template <class Arithmetic, int kTiles>
cudaError_t LaunchMma(const TieredBlocks& w, const TieredMmaArgs& a, cudaStream_t stream) {
  constexpr int kRings = kTileWarps * kWarpBytes;
  const size_t shared = (PanelTiles::kSharedBytes + 15) / 16 * 16 + kTableBytes + kRings;
  const dim3 grid(static_cast<unsigned>(NumPanels(w.n)), static_cast<unsigned>(CeilDiv(a.out.m, int64_t{8} * kTiles)));
  return Launch(TieredMmaKernel<Arithmetic, kTiles>, grid, kTileThreads, shared, stream, w, a);
}

template <class Arithmetic>
cudaError_t LaunchTensorCores(const TieredBlocks& w, const TieredMmaArgs& a, cudaStream_t stream) {
  if (a.out.m <= 8) return LaunchMma<Arithmetic, 1>(w, a, stream);
  if (a.out.m <= 16) return LaunchMma<Arithmetic, 2>(w, a, stream);
  return LaunchMma<Arithmetic, 4>(w, a, stream);
}

bool TakesTensorCores(const TieredBlocks& w, DType x) { return x == w.dtype && x != DType::kFloat32; }

int64_t PaddedColumns(const TieredBlocks& w) { return w.Tiles() * kTileColumns; }

bool NeedsPadding(const TieredBlocks& w, const TieredLinearArgs& a) {
  return TakesTensorCores(w, a.dtype) && (PaddedColumns(w) != w.k || reinterpret_cast<uintptr_t>(a.x) % 4 != 0);
}

// `stride`: elements between rows of x.
cudaError_t LaunchPart(const TieredBlocks& w, const TieredLinearArgs& a, int64_t stride, cudaStream_t stream) {
  if (TakesTensorCores(w, a.dtype)) {
    const TieredMmaArgs args{static_cast<const uint16_t*>(a.x), stride, OutputOf(w, a)};
    return a.dtype == DType::kBFloat16 ? LaunchTensorCores<BFloat16Arithmetic>(w, args, stream)
                                       : LaunchTensorCores<Float16Arithmetic>(w, args, stream);
  }
  const size_t shared = (PanelTiles::kSharedBytes + 15) / 16 * 16 + kTileValues * 4;
  const dim3 grid(static_cast<unsigned>(NumPanels(w.n)), static_cast<unsigned>(CeilDiv(a.m, kPlainTokens)));
  return Launch(TieredPlainKernel, grid, kTileThreads, shared, stream, w, a);
}

}  // namespace

int64_t TieredLinearScratch(const TieredBlocks& weight, const TieredLinearArgs& args) {
  return NeedsPadding(weight, args) ? args.m * PaddedColumns(weight) : 0;
}

cudaError_t TieredLinear(const TieredBlocks& weight, TieredLinearArgs args, cudaStream_t stream) {
  if (weight.n == 0 || args.m == 0) return cudaSuccess;
  int64_t stride = weight.k;
  if (NeedsPadding(weight, args) && weight.k > 0) {
    stride = PaddedColumns(weight);
    auto* const padded = static_cast<uint16_t*>(args.scratch);
    const cudaError_t error = PadActivations(args.x, args.dtype, nullptr, args.m, weight.k, stride, padded, stream);
    if (error != cudaSuccess) return error;
    args.x = padded;
  }
  constexpr int64_t kMostTokens = int64_t{65535} * 8;  // of a grid's y
  for (int64_t first = 0; first < args.m; first += kMostTokens) {
    TieredLinearArgs part = args;
    part.x = static_cast<const char*>(args.x) + first * stride * DTypeBytes(args.dtype);
    part.y = static_cast<char*>(args.y) + first * weight.n * DTypeBytes(args.dtype);
    part.m = min(args.m - first, kMostTokens);
    if (const cudaError_t error = LaunchPart(weight, part, stride, stream); error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

}  // namespace prism::cuda
