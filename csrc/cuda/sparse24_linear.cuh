// sparse24_linear on the GPU: y = x @ weight^T + bias, weight 2:4 in the order of sparse tensor cores (common/sparse24.cuh),
// float32 sums. dtype, of all 16-bit tensors, is kBFloat16 or kFloat16.
#pragma once
#include <cuda_runtime.h>

#include <cstdint>

#include "../common/dtype.h"

namespace prism::cuda {

// Floats of scratch that a call needs; 0 where k is not split.
int64_t Sparse24LinearScratch(int64_t m, int64_t n, int64_t k);

cudaError_t Sparse24Linear(const void* x,            // [m, k]
                           const void* values,       // [P, T, 2, 32, 8], aligned to 16 bytes
                           const uint32_t* columns,  // [P, T, 32]
                           const void* bias,         // [n] or nullptr
                           DType dtype, int64_t m, int64_t n, int64_t k, float* scratch,
                           void* y,  // [m, n]
                           cudaStream_t stream);

}  // namespace prism::cuda
