// x * column_scale, rounded to the dtype of x, in longer rows: for kernels that read x in whole blocks of columns and aligned
// vectors, and calls where k is not a multiple of such a block or x begins at an odd address. Raw pointers, no torch.
#pragma once
#include <cuda_runtime.h>

#include <cstdint>

#include "../common/dtype.h"

namespace prism::cuda {
cudaError_t PadActivations(const void* x, DType dtype,    // [m, k], 16-bit
                           const uint16_t* column_scale,  // bfloat16 [k], or null
                           int64_t m, int64_t k, int64_t padded_k,
                           uint16_t* padded,  // [m, padded_k], 0 past k
                           cudaStream_t stream);
}  // namespace prism::cuda
