#include "bitmap_pack.h"

#include <bit>

#include "isa.h"

namespace prism::cpu {
namespace generic {
namespace {

// Zero of either sign is pruned, NaN is kept.
template <class T>
bool IsKept(const BitmapPackArgs& a, int64_t i) {
  if (a.mask != nullptr) return a.mask[i];
  return static_cast<T>(static_cast<const T*>(a.weight)[i] << 1) != 0;
}

template <class T>
void MarkPanel(const BitmapPackArgs& a, int64_t panel) {
  const int64_t bytes = NumPairs(a.k) * kPairMaskBytes;
  uint8_t* masks = a.bitmap + panel * bytes;
  if (bytes > 0) std::memset(masks, 0, static_cast<size_t>(bytes));
  int64_t kept = 0;
  for (int64_t r = 0; r < std::min(kPanelRows, a.n - panel * kPanelRows); ++r) {
    for (int64_t j = 0; j < a.k; ++j) {
      if (!IsKept<T>(a, (panel * kPanelRows + r) * a.k + j)) continue;
      const int64_t bit = MaskBit<kPairColumns>(r, j);
      masks[j / kPairColumns * kPairMaskBytes + bit / 8] |= static_cast<uint8_t>(1 << bit % 8);
      ++kept;
    }
  }
  a.panel_offsets[panel + 1] = kept;
}

template <class T>
void GatherPanel(const BitmapPackArgs& a, int64_t panel) {
  const uint8_t* masks = a.bitmap + panel * NumPairs(a.k) * kPairMaskBytes;
  T* values = static_cast<T*>(a.values) + a.panel_offsets[panel];
  const T* rows = static_cast<const T*>(a.weight) + panel * kPanelRows * a.k;
  for (int64_t pair = 0; pair < NumPairs(a.k); ++pair, masks += kPairMaskBytes) {
    for (uint32_t mask = LoadMask<uint32_t>(masks); mask != 0; mask &= mask - 1) {
      const int bit = std::countr_zero(mask);
      *values++ = rows[bit / kPairColumns * a.k + kPairColumns * pair + bit % kPairColumns];
    }
  }
}

void Mark(const BitmapPackArgs& a, int64_t begin, int64_t end) {
  for (int64_t panel = begin; panel < end; ++panel) {
    a.element_bytes == 2 ? MarkPanel<uint16_t>(a, panel) : MarkPanel<uint32_t>(a, panel);
  }
}

void Gather(const BitmapPackArgs& a, int64_t begin, int64_t end) {
  for (int64_t panel = begin; panel < end; ++panel) {
    a.element_bytes == 2 ? GatherPanel<uint16_t>(a, panel) : GatherPanel<uint32_t>(a, panel);
  }
}

constexpr BitmapPackKernel kKernel{Mark, Gather};

}  // namespace
}  // namespace generic

const BitmapPackKernel* PickBitmapPack() { return Pick<const BitmapPackKernel*>("bitmap_pack", {&generic::kKernel}); }

}  // namespace prism::cpu
