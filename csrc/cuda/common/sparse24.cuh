// Where things stand in a 2:4 weight in the order of sparse tensor cores; prism_kernels/reference/sparse24.py is the
// specification. A tile is 16 rows x 64 columns, in two steps of 32; in a step, row 2 g + h and quad 4 p + 2 i + j (4 columns)
// belong to lane 4 g + 2 j + p and register 2 i + h; its columns to lane 4 g + 2 step + i, bits 4 (4 h + 2 j + p)...
#pragma once
#include <cstdint>

#include "../../common/panels.h"

namespace prism {

inline constexpr int kSparseTileColumns = 64;
inline constexpr int kSparseStepColumns = 32;
inline constexpr int kSparseStepQuads = 8;

PRISM_HOST_DEVICE inline int64_t NumSparseTiles(int64_t k) { return CeilDiv(k, kSparseTileColumns); }

struct SparsePlace {
  int lane, reg;               // of the pair
  int columns_lane, columns_bit;  // of its columns
};

PRISM_HOST_DEVICE inline SparsePlace PlaceOf(int g, int h, int step, int quad) {
  const int p = quad >> 2, i = quad >> 1 & 1, j = quad & 1;
  return {4 * g + 2 * j + p, 2 * i + h, 4 * g + 2 * step + i, 4 * (4 * h + 2 * j + p)};
}

}  // namespace prism
