// Activations of activation_bits = 8, as prism_kernels/reference/activations.py: per token s = max|x c| / 127 (1 where that
// is 0) and whole numbers q = x c / s, rounded half to even; bfloat16 holds them exactly. Raw pointers, no torch.
#pragma once
#include <cuda_runtime.h>

#include <cstdint>

#include "../common/dtype.h"

namespace prism::cuda {
cudaError_t QuantizeActivations(const void* x, DType dtype,    // [m, k]
                                const uint16_t* column_scale,  // bfloat16 [k], or null
                                int64_t m, int64_t k,
                                uint16_t* whole,     // bfloat16 [m, k]
                                float* token_scale,  // [m]
                                cudaStream_t stream);
}  // namespace prism::cuda
