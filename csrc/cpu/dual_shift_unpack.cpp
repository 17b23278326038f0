#include "dual_shift_unpack.h"

#include <algorithm>

#include "isa.h"
#include "panel_codes.h"

namespace prism::cpu {
namespace generic {

void DualShiftUnpack(const DualShiftUnpackArgs& a, int64_t begin, int64_t end) {
  for (int64_t panel = begin; panel < end; ++panel) {
    const uint8_t* block = a.packed + panel * PanelCodeBytes(a.k, a.bits);
    const int64_t rows = std::min(kPanelRows, a.n - panel * kPanelRows);
    uint8_t* codes = a.codes + panel * kPanelRows * a.k;
    for (int64_t first = 0; first < a.k; first += kBlockColumns, block += a.bits * kQuadBytes) {
      for (int q = 0; q < kBlockQuads; ++q) {
        uint32_t lanes[kPanelRows];
        LoadQuad(block, a.bits, q, lanes);
        for (int b = 0; b < kQuadColumns; ++b) {
          const int64_t column = first + q * kQuadColumns + kQuadOrder[b];
          if (column >= a.k) continue;
          for (int64_t r = 0; r < rows; ++r) codes[r * a.k + column] = static_cast<uint8_t>(lanes[r] >> 8 * b);
        }
      }
    }
  }
}

}  // namespace generic

DualShiftUnpackFn PickDualShiftUnpack() {
  return Pick<DualShiftUnpackFn>("dual_shift_unpack", {generic::DualShiftUnpack});
}

}  // namespace prism::cpu
