// A weight in tiles of 16 rows x 16 columns as raw pointers; prism_kernels/reference/tiered.py is the specification.
// Tiles follow one another panel by panel (16 rows), from the first column to the last. A tile's mask is 8 little-endian
// 32-bit words, one per pair of columns: bit 2 * row + c is (row, column 2 * j + c). Survivors lie in the order of bits.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstring>

#include "../common/panels.h"

namespace prism::cpu {

constexpr int64_t kTileColumns = 16;
constexpr int kTilePairs = 8;
constexpr int64_t kTileSize = kPanelRows * kTileColumns;
constexpr int64_t kTileMaskBytes = 32;

// A dense tile stores every weight and no mask, an empty one stores nothing; the others store a mask and survivors.
enum Tier : uint8_t { kTierDense = 0, kTierSparse24 = 1, kTierTopK = 2, kTierEmpty = 3 };

inline int64_t NumTiles(int64_t k) { return CeilDiv(k, kTileColumns); }
inline int64_t TiledColumns(int64_t k) { return NumTiles(k) * kTileColumns; }

struct TieredBlocks {
  const uint8_t* tiers;          // [panels, NumTiles(k)]
  const uint8_t* masks;          // [num_masks, 32]
  const void* values;            // [num_values] of dtype
  const int64_t* panel_offsets;  // [panels + 1, 2]: where panels begin in masks and in values; rising, in range
  int64_t num_masks, num_values, k;
  DType dtype;

  int64_t ElementBytes() const { return DTypeBytes(dtype); }
};

inline constexpr uint32_t kFullTile[kTilePairs] = {~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u};

inline uint32_t LoadPairMask(const uint8_t* word) {
  return word[0] | static_cast<uint32_t>(word[1]) << 8 | static_cast<uint32_t>(word[2]) << 16 |
         static_cast<uint32_t>(word[3]) << 24;
}

// Where a tile is read from when fewer than kTileSize values are left behind its begin.
struct TileCopy {
  alignas(64) uint8_t bytes[kTileSize * 4];

  __attribute__((noinline)) void Fill(const uint8_t* from, int64_t left, int64_t needed) {
    const int64_t count = std::clamp<int64_t>(left, 0, needed);
    if (count > 0) std::memcpy(bytes, from, static_cast<size_t>(count));
    std::memset(bytes + count, 0, static_cast<size_t>(needed - count));
  }
};

// Walks over the tiles of one panel. Whatever the map and the masks promise, an opened tile has kTileSize readable
// values behind it: near the end of the stream it is read from `copy`, padded with 0. The copy lives outside, so that
// compilers keep the walk in registers.
class TileStream {
 public:
  TileStream(const TieredBlocks& w, int64_t panel, TileCopy* copy)
      : tiers_(w.tiers + panel * NumTiles(w.k)), masks_(w.masks + w.panel_offsets[2 * panel] * kTileMaskBytes),
        values_(static_cast<const uint8_t*>(w.values) + w.panel_offsets[2 * panel + 1] * w.ElementBytes()),
        copy_(copy), left_((w.num_values - w.panel_offsets[2 * panel + 1]) * w.ElementBytes()),
        masks_left_(w.num_masks - w.panel_offsets[2 * panel]), needed_(kTileSize * w.ElementBytes()) {}

  // Opens the next tile; false if it is empty.
  bool Open() {
    const uint8_t tier = *tiers_++;
    const bool dense = tier == kTierDense;
    if (tier >= kTierEmpty || (!dense && masks_left_ <= 0)) return false;
    mask_ = dense ? reinterpret_cast<const uint8_t*>(kFullTile) : masks_;
    masks_ += dense ? 0 : kTileMaskBytes;
    masks_left_ -= !dense;
    tile_ = values_;
    if (left_ < needed_) {
      copy_->Fill(values_, left_, needed_);
      tile_ = copy_->bytes;
    }
    return true;
  }

  const uint8_t* mask() const { return mask_; }
  const uint8_t* values() const { return tile_; }
  void Close(int64_t bytes) {  // of values that the tile had
    values_ += bytes;
    left_ -= bytes;
  }

 private:
  const uint8_t *tiers_, *masks_, *values_, *mask_ = nullptr, *tile_ = nullptr;
  TileCopy* copy_;
  int64_t left_, masks_left_, needed_;
};

}  // namespace prism::cpu
