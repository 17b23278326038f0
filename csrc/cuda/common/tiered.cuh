// What the kernels over tiles of 16 x 16 share (prism_kernels/reference/tiered.py is the specification): where the tiles of a
// panel begin, and a lane's part of a tile's mask.
//
// Where a tile begins depends on all tiles before it, so the threads of a block first find that of kTileChunk tiles at once
// (four neighbours each, two sums over the block) and keep it in shared memory, with the counts before each word of a mask.
// The masks are then in the caches.
//
// Whatever map, masks and offsets promise, reads stay inside the streams: a mask past the end is an empty tile, a value
// past the end is 0.
#pragma once
#include "../tiered.cuh"
#include "launch.cuh"

namespace prism::cuda {

inline constexpr int kTileValues = 256;
inline constexpr int kTileThreads = 256;
inline constexpr int kTileWarps = kTileThreads / 32;
inline constexpr int kTilesOfThread = 4;
inline constexpr int kTileChunk = kTileThreads * kTilesOfThread;
inline constexpr int kDenseTile = -1, kEmptyTile = -2;  // in place of a mask

struct alignas(16) TilePlace {
  int values;          // where the tile begins, from the begin of the chunk
  int mask;            // from the begin of the chunk, or kDenseTile or kEmptyTile
  uint32_t before[2];  // byte j: survivors of the tile in the words before word j of its mask; without one: [0] is the number
                       // of masks of the chunk before it
};

// What a tile costs a warp beside its values, in bytes of them: instructions and its mask.
inline constexpr int kTileOverheadBytes = 160;

// A panel, chunk by chunk; every thread of the block makes the same calls.
class PanelTiles {
 public:
  static constexpr int kSharedBytes = (kTileChunk + 2) * static_cast<int>(sizeof(TilePlace)) + 3 * kTileWarps * 4 + 16;

  __device__ PanelTiles(const TieredBlocks& w, int64_t panel, unsigned char* shared)
      : w_(w), tiers_(w.tiers + panel * w.Tiles()), places_(reinterpret_cast<TilePlace*>(shared)),
        sums_(reinterpret_cast<int*>(places_ + kTileChunk + 2)), begins_(sums_ + 2 * kTileWarps),
        mask_(Bounded(w.panel_offsets[2 * panel], w.num_masks)),
        value_(Bounded(w.panel_offsets[2 * panel + 1], w.num_values)) {}

  // Finds the tiles [first, first + the result); chunks are opened one after another.
  __device__ int Open(int64_t first) {
    const int count = static_cast<int>(min(w_.Tiles() - first, static_cast<int64_t>(kTileChunk)));
    mask_ += masks_before_, value_ += values_before_;
    __syncthreads();  // the places of the chunk before are no longer read
    const int own = static_cast<int>(threadIdx.x) * kTilesOfThread;
    int tier[kTilesOfThread], masked = 0;
#pragma unroll
    for (int i = 0; i < kTilesOfThread; ++i) {
      tier[i] = own + i < count ? tiers_[first + own + i] : 3;
      masked += tier[i] == 1 || tier[i] == 2;
    }
    int at = SumBefore(masked, sums_, &masks_before_);
    int sizes[kTilesOfThread], size = 0;
#pragma unroll
    for (int i = 0; i < kTilesOfThread; ++i) {
      const bool has_mask = tier[i] == 1 || tier[i] == 2;
      const bool stored = has_mask && mask_ + at < w_.num_masks;
      TilePlace place = {0, tier[i] == 0 ? kDenseTile : kEmptyTile, {static_cast<uint32_t>(at), 0}};
      sizes[i] = tier[i] == 0 ? kTileValues : 0;
      if (stored) {
        place = {0, at, {0, 0}};
        sizes[i] = Survivors(mask_ + at, place.before);
      }
      if (own + i < count) places_[own + i] = place;
      size += sizes[i];
      at += has_mask;
    }
    int value = SumBefore(size, sums_ + kTileWarps, &values_before_);
    Share(own, count, value, sizes);
#pragma unroll
    for (int i = 0; i < kTilesOfThread; ++i) {
      if (own + i < count) places_[own + i].values = value;
      value += sizes[i];
    }
    if (threadIdx.x < 2) places_[count + threadIdx.x] = {values_before_, kEmptyTile, {0, 0}};  // what follows the last tile
    __syncthreads();
    return count;
  }

  // Warp i multiplies the tiles of the chunk from the i-th of these on, up to the next: shares of about as many bytes each.
  __device__ int ShareBegin(int warp) const { return begins_[warp]; }

  __device__ TilePlace Place(int tile) const { return places_[tile]; }  // of the chunk, up to two past its last
  __device__ const uint8_t* Mask(TilePlace place) const { return w_.masks + (mask_ + place.mask) * kTileMaskBytes; }
  __device__ int64_t Value(TilePlace place) const { return value_ + place.values; }
  // Of this tile's mask, or of the next one after it.
  __device__ int64_t MaskIndex(TilePlace place) const {
    return mask_ + (place.mask >= 0 ? place.mask : static_cast<int>(place.before[0]));
  }

 private:
  static __device__ int64_t Bounded(int64_t offset, int64_t size) { return min(max(offset, int64_t{0}), size); }

  // All of a tile, and in `before` those that precede each word: at most 224, a byte.
  __device__ int Survivors(int64_t mask, uint32_t (&before)[2]) const {
    const auto* from = reinterpret_cast<const uint4*>(w_.masks + mask * kTileMaskBytes);
    const uint4 low = __ldg(from), high = __ldg(from + 1);
    const uint32_t words[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
    uint32_t sum = 0;
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      before[j / 4] |= sum << 8 * (j % 4);
      sum += static_cast<uint32_t>(__popc(words[j]));
    }
    return static_cast<int>(sum);
  }

  // Writes the begins of shares that lie among this thread's tiles, the first of which begins at `value`.
  __device__ void Share(int own, int count, int value, const int (&sizes)[kTilesOfThread]) {
    const auto cost = [](int values, int tiles) {  // in pairs of bytes; at most 2^19
      return static_cast<uint32_t>(values + kTileOverheadBytes / 2 * tiles);
    };
    const uint32_t all = cost(values_before_, count);
    uint32_t share = cost(value, own) * kTileWarps / all;
#pragma unroll
    for (int i = 0; i < kTilesOfThread; ++i) {
      if (own + i >= count) break;
      value += sizes[i];
      const uint32_t next = cost(value, own + i + 1) * kTileWarps / all;
      for (uint32_t warp = share + 1; warp <= next; ++warp) begins_[warp] = own + i + 1;
      share = next;
    }
    if (own == 0) begins_[0] = 0;
  }

  // The sum over the threads before this one.
  static __device__ int SumBefore(int own, int* sums, int* total) {
    const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
    int sum = own;
    for (int lanes = 1; lanes < 32; lanes *= 2) {
      const int before = __shfl_up_sync(0xffffffffu, sum, static_cast<unsigned>(lanes));
      if (lane >= lanes) sum += before;
    }
    if (lane == 31) sums[warp] = sum;
    __syncthreads();
    int earlier = 0, all = 0;
    for (int i = 0; i < kTileWarps; ++i) {
      if (i == warp) earlier = all;
      all += sums[i];
    }
    *total = all;
    return earlier + sum - own;
  }

  const TieredBlocks& w_;
  const uint8_t* tiers_;
  TilePlace* places_;
  int *sums_, *begins_;  // begins_: of the shares, and the end of the last
  int64_t mask_, value_;  // where the chunk begins
  int masks_before_ = 0, values_before_ = 0;  // of the chunk that is open
};

// Four words of a tile's mask, those of columns 0 to 7 or 8 to 15, in a lane whose neighbour (lane ^ 1) has the other four.
struct HalfMask {
  uint32_t words[4];
  int before;  // survivors of the tile that precede them

  // All lanes of the warp; `words` are 0 where the tile has none.
  __device__ HalfMask(uint4 four, bool second) : words{four.x, four.y, four.z, four.w} {
    const int own = __popc(words[0]) + __popc(words[1]) + __popc(words[2]) + __popc(words[3]);
    const int other = __shfl_xor_sync(0xffffffffu, own, 1);
    before = second ? other : 0;
  }

  // Calls use(j, bit, position) for the kCount bits of word j from bit `shift` on: position is the survivor's in the tile,
  // or -1.
  template <int kCount, class Use>
  __device__ void ForBits(int shift, Use use) const {
    int start = before;
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const uint32_t word = words[j];
      int position = start + __popc(word & ((1u << shift) - 1u));
#pragma unroll
      for (int bit = 0; bit < kCount; ++bit) {
        const bool kept = (word >> (shift + bit) & 1u) != 0;
        use(j, bit, kept ? position : -1);
        position += kept;
      }
      start += __popc(word);
    }
  }
};

}  // namespace prism::cuda
