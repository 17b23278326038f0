// sparse24_dual_shift_linear on the GPU: y = x @ weight^T + bias, weight = (code - zero) * scale * column_scale behind a 2:4
// mask, in the order of sparse tensor cores (common/sparse24.cuh). x * column_scale is rounded to the dtype of x; the rest is
// exact but for float32 sums. dtype, of x, bias and y, is kBFloat16 or kFloat16.
#pragma once
#include <cuda_runtime.h>

#include <cstdint>

#include "../common/dtype.h"

namespace prism::cuda {

int64_t Sparse24DualShiftLinearScratch(int64_t m, int64_t n, int64_t k);  // floats

struct Sparse24DualShift {
  const uint32_t* codes;         // [P, T, 32, 2]
  const uint32_t* columns;       // [P, T, 32]
  const uint16_t* scale;         // bfloat16 [P, G, 16]
  const uint8_t* zero;           // [P, G, 8]
  const uint16_t* column_scale;  // bfloat16 [k]
  int64_t group_size;            // a multiple of 32
};

cudaError_t Sparse24DualShiftLinear(const void* x,  // [m, k]
                                    const Sparse24DualShift& weight,
                                    const void* bias,  // [n] or nullptr
                                    DType dtype, int64_t m, int64_t n, int64_t k, float* scratch,
                                    void* y,  // [m, n]
                                    cudaStream_t stream);

}  // namespace prism::cuda
