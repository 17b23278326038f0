#include "dual_shift_pack.h"

#include <algorithm>
#include <cstring>

#include "../common/panels.h"
#include "isa.h"

namespace prism::cpu {
namespace generic {
namespace {

// The codes of a block in the order of its quads.
void GatherBlock(const DualShiftPackArgs& a, int64_t panel, int64_t block, uint8_t* quads) {
  std::memset(quads, 0, static_cast<size_t>(kBlockQuads * kQuadBytes));
  const int64_t rows = std::min(kPanelRows, a.n - panel * kPanelRows);
  const int64_t first = block * kBlockColumns, columns = std::min(kBlockColumns, a.k - first);
  for (int64_t r = 0; r < rows; ++r) {
    const uint8_t* row = a.codes + (panel * kPanelRows + r) * a.k + first;
    for (int64_t q = 0; q < kBlockQuads; ++q) {
      for (int64_t b = 0; b < kQuadColumns; ++b) {
        const int64_t column = q * kQuadColumns + kQuadOrder[b];
        if (column < columns) quads[q * kQuadBytes + r * kQuadColumns + b] = row[column];
      }
    }
  }
}

// `width` bits from bit `shift` on to `width` vectors.
void PackPlane(const uint8_t* quads, int shift, int width, uint8_t* vectors) {
  const int per_vector = 8 / width, mask = (1 << width) - 1;
  for (int v = 0; v < width; ++v) {
    for (int64_t i = 0; i < kQuadBytes; ++i) {
      int byte = 0;
      for (int f = 0; f < per_vector; ++f) {
        byte |= ((quads[(v * per_vector + f) * kQuadBytes + i] >> shift) & mask) << (width * f);
      }
      vectors[v * kQuadBytes + i] = static_cast<uint8_t>(byte);
    }
  }
}

}  // namespace

void DualShiftPack(const DualShiftPackArgs& a, int64_t begin, int64_t end) {
  const PlaneWidths widths = PlaneWidthsOf(a.bits);
  uint8_t quads[kBlockQuads * kQuadBytes];
  for (int64_t panel = begin; panel < end; ++panel) {
    uint8_t* packed = a.packed + panel * PanelCodeBytes(a.k, a.bits);
    for (int64_t block = 0; block < NumBlocks32(a.k); ++block, packed += a.bits * kQuadBytes) {
      GatherBlock(a, panel, block, quads);
      PackPlane(quads, 0, widths.low, packed);
      if (widths.high != 0) PackPlane(quads, widths.low, widths.high, packed + widths.low * kQuadBytes);
    }
  }
}

}  // namespace generic

DualShiftPackFn PickDualShiftPack() { return Pick<DualShiftPackFn>("dual_shift_pack", {generic::DualShiftPack}); }

}  // namespace prism::cpu
