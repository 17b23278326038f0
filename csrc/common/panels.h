// The order in which every packed weight is stored: panels of 16 rows, in them quads of 16 rows x 4 columns, so that a
// vector register of 16 lanes holds one row per lane. prism_kernels/reference/panels.py is the specification.
#pragma once
#include <cstdint>

#include "dtype.h"

namespace prism {

inline constexpr int64_t kPanelRows = 16;
inline constexpr int64_t kQuadColumns = 4;
inline constexpr int64_t kQuadBytes = kPanelRows * kQuadColumns;
inline constexpr int64_t kBlockColumns = 32;  // of packed codes: 8 quads
inline constexpr int64_t kBlockQuads = kBlockColumns / kQuadColumns;

// Byte b of a lane is this column of the quad: low bytes of the 16-bit words are a pair of neighbours, high bytes too.
inline constexpr int kQuadOrder[4] = {0, 2, 1, 3};

PRISM_HOST_DEVICE inline int64_t NumPanels(int64_t n) { return CeilDiv(n, kPanelRows); }
PRISM_HOST_DEVICE inline int64_t NumQuads(int64_t k) { return CeilDiv(k, kQuadColumns); }
PRISM_HOST_DEVICE inline int64_t NumBlocks32(int64_t k) { return CeilDiv(k, kBlockColumns); }

// Bytes of the zero points of one group of one panel: two rows to a byte up to 4 bits.
PRISM_HOST_DEVICE inline int64_t ZeroBytes(int bits) { return bits <= 4 ? kPanelRows / 2 : kPanelRows; }

// Codes are split into bit planes, low bits first: `high` is 0 where one plane is enough. A plane of w bits is w vectors
// of 64 bytes per block; quad q lies in vector q / (8 / w), shifted by w * (q % (8 / w)).
struct PlaneWidths {
  int low, high;
};

PRISM_HOST_DEVICE constexpr PlaneWidths PlaneWidthsOf(int bits) {
  return bits == 8 || bits == 4 || bits == 2 ? PlaneWidths{bits, 0} : PlaneWidths{bits == 3 ? 2 : 4, bits == 3 ? 1 : bits - 4};
}

// Bytes of the packed codes of one panel.
PRISM_HOST_DEVICE inline int64_t PanelCodeBytes(int64_t k, int bits) { return NumBlocks32(k) * bits * kQuadBytes; }

}  // namespace prism
