#include "bitmap_unpack.h"

#include <bit>

#include "expand_generic.h"
#include "isa.h"

namespace prism::cpu {
namespace generic {
namespace {

constexpr int64_t kTileColumns = 32, kTilePairs = kTileColumns / kPairColumns;
constexpr int64_t kPairValues = kPanelRows * kPairColumns;

// The pairs of a tile; lane r of a strip holds row r, its halves the two columns.
using TilePairs = Words4[kTilePairs][kPanelStrips];

// Values of 16 bits.
void UnpackPairs(const uint8_t* masks, int64_t pairs, const uint8_t*& values, TilePairs& tile) {
  for (int64_t pair = 0; pair < pairs; ++pair, masks += kPairMaskBytes) {
    for (int strip = 0; strip < kPanelStrips; ++strip) {
      tile[pair][strip] = reinterpret_cast<Words4>(ExpandWords(masks[strip], values));
    }
  }
}

void StorePairs(const TilePairs& tile, char* out, int64_t stride) {
  for (int strip = 0; strip < kPanelStrips; ++strip, out += kStripRows * stride) {
    for (int64_t pair = 0; pair < kTilePairs; pair += 4) {
      StoreStrip(tile[pair][strip], tile[pair + 1][strip], tile[pair + 2][strip], tile[pair + 3][strip], out + pair * 4,
                 stride);
    }
  }
}

void UnpackPanel16(const BitmapUnpackArgs& a, int64_t panel) {
  const int64_t pairs = NumPairs(a.k), rows = std::min(kPanelRows, a.n - panel * kPanelRows), stride = a.k * 2;
  const uint8_t* masks = a.bitmap + panel * pairs * kPairMaskBytes;
  char* out = static_cast<char*>(a.weight) + panel * kPanelRows * stride;
  GuardedStream<kTilePairs * kPairValues * 2 + 16> stream(a.values, a.size * 2);
  int64_t position = a.panel_offsets[panel] * 2;
  for (int64_t first = 0; first < pairs; first += kTilePairs, masks += kTilePairs * kPairMaskBytes) {
    TilePairs tile = {};
    const uint8_t *const begin = stream.At(position), *values = begin;
    UnpackPairs(masks, std::min(kTilePairs, pairs - first), values, tile);
    position += values - begin;
    DecodeRows<kTileColumns * 2>(out + first * 4, stride, rows, stride - first * 4,
                                 [&](char* to, int64_t apart) { StorePairs(tile, to, apart); });
  }
}

void UnpackPanel32(const BitmapUnpackArgs& a, int64_t panel) {
  const uint8_t* masks = a.bitmap + panel * NumPairs(a.k) * kPairMaskBytes;
  const uint32_t* values = static_cast<const uint32_t*>(a.values);
  const int64_t rows = std::min(kPanelRows, a.n - panel * kPanelRows);
  uint32_t* out = static_cast<uint32_t*>(a.weight) + panel * kPanelRows * a.k;
  int64_t next = a.panel_offsets[panel];
  for (int64_t first = 0; first < a.k; first += kTileColumns) {
    uint32_t tile[kPanelRows][kTileColumns] = {};
    const int64_t columns = std::min(kTileColumns, a.k - first);
    for (int64_t pair = 0; pair < NumPairs(columns); ++pair, masks += kPairMaskBytes) {
      for (uint32_t mask = LoadMask<uint32_t>(masks); mask != 0; mask &= mask - 1, ++next) {
        const int bit = std::countr_zero(mask);
        tile[bit / kPairColumns][kPairColumns * pair + bit % kPairColumns] = next < a.size ? values[next] : 0;
      }
    }
    for (int64_t r = 0; r < rows; ++r) std::copy_n(tile[r], columns, out + r * a.k + first);
  }
}

}  // namespace

void BitmapUnpack(const BitmapUnpackArgs& a, int64_t begin, int64_t end) {
  for (int64_t panel = begin; panel < end; ++panel) a.element_bytes == 2 ? UnpackPanel16(a, panel) : UnpackPanel32(a, panel);
}

}  // namespace generic

BitmapUnpackFn PickBitmapUnpack() {
#if PRISM_X86
  return Pick<BitmapUnpackFn>("bitmap_unpack",
                              {generic::BitmapUnpack, avx2::BitmapUnpack, avx512::BitmapUnpack, nullptr});
#else
  return Pick<BitmapUnpackFn>("bitmap_unpack", {generic::BitmapUnpack});
#endif
}

}  // namespace prism::cpu
