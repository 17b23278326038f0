// sparse24_dual_shift_dequantize on the GPU: weight = (code - zero) * scale * column_scale where a code is stored and +0
// elsewhere, in float32, rounded once to `dtype`; the values of bitmap_dual_shift_dequantize, bit for bit.
#pragma once
#include "sparse24_dual_shift_linear.cuh"

namespace prism::cuda {

cudaError_t Sparse24DualShiftDequantize(const Sparse24DualShift& weight, DType dtype, int64_t n, int64_t k,
                                        void* dense,  // [n, k] of dtype
                                        cudaStream_t stream);

}  // namespace prism::cuda
