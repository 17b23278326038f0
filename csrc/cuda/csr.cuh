// A CSR weight on the GPU as raw pointers: the survivors of each row with their columns, row after row. Offsets and columns
// stay on the device, so kernels bound them: offsets by the stream, a column out of range counts as the last one.
#pragma once
#include <cuda_runtime.h>

#include <cstdint>

#include "../common/dtype.h"

namespace prism::cuda {

struct CsrRows {
  const void* values;       // [num_values] of dtype
  const void* columns;      // [num_values], uint16 or int32
  const void* row_offsets;  // [n + 1], int32 or int64
  int64_t num_values, n, k;
  DType dtype;
  bool wide_columns, wide_offsets;

  PRISM_HOST_DEVICE int64_t Offset(int64_t row) const {
    const int64_t offset = wide_offsets ? static_cast<const int64_t*>(row_offsets)[row] : static_cast<const int32_t*>(row_offsets)[row];
    return offset < 0 ? 0 : offset > num_values ? num_values : offset;
  }
};

}  // namespace prism::cuda
