#include "sparse24_common.h"

namespace prism {

Tensor Sparse24DualShiftLinearCuda(const Tensor& x, const Tensor& codes, const Tensor& columns, const Tensor& scale,
                                   const Tensor& zero, const Tensor& column_scale, const std::optional<Tensor>& bias,
                                   int64_t n, int64_t group_size) {
  constexpr const char* kOp = "sparse24_dual_shift_linear";
  CheckSparseActivations(x, kOp);
  const int64_t k = x.size(1);
  const cuda::Sparse24DualShift weight =
      CheckSparse24Codes(codes, columns, scale, zero, column_scale, x, n, k, group_size, kOp);
  const CurrentStream current(x);
  const SparseCall call = PrepareSparseCall(x, bias, n, cuda::Sparse24DualShiftLinearScratch(x.size(0), n, k), kOp);
  CheckLaunch(cuda::Sparse24DualShiftLinear(x.const_data_ptr(), weight, call.bias, call.dtype, call.m, n, k,
                                            MutableData<float>(call.scratch), call.y.mutable_data_ptr(), current.stream),
              kOp);
  return call.y;
}

}  // namespace prism

STABLE_TORCH_LIBRARY_IMPL(prism, CUDA, m) {
  m.impl("sparse24_dual_shift_linear", TORCH_BOX(&prism::Sparse24DualShiftLinearCuda));
}
