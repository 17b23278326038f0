#include "../../cuda/sparse24_dual_shift_dequantize.cuh"

#include "sparse24_common.h"

namespace prism {

Tensor Sparse24DualShiftDequantizeCuda(const Tensor& codes, const Tensor& columns, const Tensor& scale, const Tensor& zero,
                                       const Tensor& column_scale, int64_t n, int64_t group_size, ScalarType dtype) {
  constexpr const char* kOp = "sparse24_dual_shift_dequantize";
  const int64_t k = column_scale.numel();
  const cuda::Sparse24DualShift weight =
      CheckSparse24Codes(codes, columns, scale, zero, column_scale, column_scale, n, k, group_size, kOp);
  const CurrentStream current(codes);
  Tensor dense = torch::stable::new_empty(codes, {n, k}, dtype);
  CheckLaunch(cuda::Sparse24DualShiftDequantize(weight, FloatDType(dense, kOp, "dtype"), n, k, dense.mutable_data_ptr(),
                                                current.stream), kOp);
  return dense;
}

}  // namespace prism

STABLE_TORCH_LIBRARY_IMPL(prism, CUDA, m) {
  m.impl("sparse24_dual_shift_dequantize", TORCH_BOX(&prism::Sparse24DualShiftDequantizeCuda));
}
