#include "bitmap_dual_shift_pack.h"

#include <bit>

#include "isa.h"

namespace prism::cpu {
namespace generic {
namespace {

void MarkPanel(const BitmapDualShiftPackArgs& a, int64_t panel) {
  const int64_t quads = NumQuads(a.k);
  uint8_t* masks = a.bitmap + panel * quads * kQuadMaskBytes;
  if (quads > 0) std::memset(masks, 0, static_cast<size_t>(quads * kQuadMaskBytes));
  for (int64_t r = 0; r < std::min(kPanelRows, a.n - panel * kPanelRows); ++r) {
    const bool* kept = a.mask + (panel * kPanelRows + r) * a.k;
    for (int64_t j = 0; j < a.k; ++j) {
      const int64_t bit = MaskBit<kQuadColumns>(r, j);
      masks[j / kQuadColumns * kQuadMaskBytes + bit / 8] |= static_cast<uint8_t>((kept[j] ? 1 : 0) << bit % 8);
    }
  }
  int64_t bytes = 0;
  for (int64_t q = 0; q < quads; ++q) {
    bytes += CeilDiv(std::popcount(LoadMask<uint64_t>(masks + q * kQuadMaskBytes)) * a.bits, 8);
  }
  a.panel_offsets[panel + 1] = bytes;
}

void GatherPanel(const BitmapDualShiftPackArgs& a, int64_t panel) {
  const uint8_t* masks = a.bitmap + panel * NumQuads(a.k) * kQuadMaskBytes;
  const uint8_t* rows = a.codes + panel * kPanelRows * a.k;
  uint8_t* packed = a.packed + a.panel_offsets[panel];
  const uint32_t low = (1u << a.bits) - 1;
  for (int64_t quad = 0; quad < NumQuads(a.k); ++quad, masks += kQuadMaskBytes) {
    uint32_t pending = 0;
    int held = 0;  // bits of `pending` that are not yet written
    for (uint64_t mask = LoadMask<uint64_t>(masks); mask != 0; mask &= mask - 1) {
      const int bit = std::countr_zero(mask);
      const int64_t column = quad * kQuadColumns + kQuadOrder[bit % kQuadColumns];
      pending |= (rows[bit / kQuadColumns * a.k + column] & low) << held;
      held += a.bits;
      if (held >= 8) {
        *packed++ = static_cast<uint8_t>(pending);
        pending >>= 8;
        held -= 8;
      }
    }
    if (held > 0) *packed++ = static_cast<uint8_t>(pending);
  }
}

void Mark(const BitmapDualShiftPackArgs& a, int64_t begin, int64_t end) {
  for (int64_t panel = begin; panel < end; ++panel) MarkPanel(a, panel);
}

void Gather(const BitmapDualShiftPackArgs& a, int64_t begin, int64_t end) {
  for (int64_t panel = begin; panel < end; ++panel) GatherPanel(a, panel);
}

constexpr BitmapDualShiftPackKernel kKernel{Mark, Gather};

}  // namespace
}  // namespace generic

const BitmapDualShiftPackKernel* PickBitmapDualShiftPack() {
  return Pick<const BitmapDualShiftPackKernel*>("bitmap_dual_shift_pack", {&generic::kKernel});
}

}  // namespace prism::cpu
