// A CSR weight as raw pointers: the survivors of each row with their columns, row after row.
#pragma once
#include <algorithm>
#include <cstdint>

#include "../common/dtype.h"

namespace prism::cpu {

struct CsrRows {
  const void* values;       // [num_values] of dtype
  const void* columns;      // [num_values], uint16 or int32
  const void* row_offsets;  // [n + 1], int32 or int64, rising, within [0, num_values]
  int64_t k;
  DType dtype;
  bool wide_columns, wide_offsets;

  int64_t Offset(int64_t row) const {
    return wide_offsets ? static_cast<const int64_t*>(row_offsets)[row] : static_cast<const int32_t*>(row_offsets)[row];
  }
  // Of a weight with k > 0; a column out of range counts as the last one, so that no read leaves x.
  uint32_t Column(int64_t i) const {
    const uint32_t column =
        wide_columns ? static_cast<const uint32_t*>(columns)[i] : static_cast<const uint16_t*>(columns)[i];
    return std::min(column, static_cast<uint32_t>(k - 1));
  }
};

}  // namespace prism::cpu
