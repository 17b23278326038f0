#include "bitmap_unpack.h"

#include <bit>

#include "isa.h"

namespace prism::cpu {
namespace generic {
namespace {

constexpr int64_t kTileColumns = 64;

template <class T>
void UnpackPanel(const BitmapUnpackArgs& a, int64_t panel) {
  const uint8_t* masks = a.bitmap + panel * NumPairs(a.k) * kPairMaskBytes;
  const T* values = static_cast<const T*>(a.values);
  const int64_t rows = std::min(kPanelRows, a.n - panel * kPanelRows);
  T* out = static_cast<T*>(a.weight) + panel * kPanelRows * a.k;
  int64_t next = a.panel_offsets[panel];
  for (int64_t first = 0; first < a.k; first += kTileColumns) {
    T tile[kPanelRows][kTileColumns] = {};
    const int64_t columns = std::min(kTileColumns, a.k - first);
    for (int64_t pair = 0; pair < NumPairs(columns); ++pair, masks += kPairMaskBytes) {
      for (uint32_t mask = LoadMask<uint32_t>(masks); mask != 0; mask &= mask - 1, ++next) {
        const int bit = std::countr_zero(mask);
        tile[bit / kPairColumns][kPairColumns * pair + bit % kPairColumns] = next < a.size ? values[next] : T{0};
      }
    }
    for (int64_t r = 0; r < rows; ++r) std::copy_n(tile[r], columns, out + r * a.k + first);
  }
}

}  // namespace

void BitmapUnpack(const BitmapUnpackArgs& a, int64_t begin, int64_t end) {
  for (int64_t panel = begin; panel < end; ++panel) {
    a.element_bytes == 2 ? UnpackPanel<uint16_t>(a, panel) : UnpackPanel<uint32_t>(a, panel);
  }
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
