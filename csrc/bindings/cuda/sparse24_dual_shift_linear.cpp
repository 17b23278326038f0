#include "../../cuda/sparse24_dual_shift_linear.cuh"

#include "sparse24_common.h"

namespace prism {

Tensor Sparse24DualShiftLinearCuda(const Tensor& x, const Tensor& codes, const Tensor& columns, const Tensor& scale,
                                   const Tensor& zero, const Tensor& column_scale, const std::optional<Tensor>& bias,
                                   int64_t n, int64_t group_size) {
  constexpr const char* kOp = "sparse24_dual_shift_linear";
  CheckSparseActivations(x, kOp);
  const int64_t k = x.size(1);
  CheckSparse24(codes, columns, n, k, true, kOp);
  STD_TORCH_CHECK(group_size >= 32 && group_size % 32 == 0, kOp, ": group_size must be a multiple of 32");
  const int64_t groups = NumPanels(n) * CeilDiv(k, group_size);
  CheckTensor(scale, ScalarType::BFloat16, kOp, "scale");
  CheckNumel(scale, groups * kPanelRows, kOp, "scale");
  CheckTensor(zero, ScalarType::Byte, kOp, "zero");
  CheckNumel(zero, groups * ZeroBytes(4), kOp, "zero");
  CheckTensor(column_scale, ScalarType::BFloat16, kOp, "column_scale");
  CheckNumel(column_scale, k, kOp, "column_scale");
  const CurrentStream current(x);
  const SparseCall call = PrepareSparseCall(x, bias, n, cuda::Sparse24DualShiftLinearScratch(x.size(0), n, k), kOp);
  const cuda::Sparse24DualShift weight{ConstData<uint32_t>(codes), ConstData<uint32_t>(columns), ConstData<uint16_t>(scale),
                                       ConstData<uint8_t>(zero),   ConstData<uint16_t>(column_scale), group_size};
  CheckLaunch(cuda::Sparse24DualShiftLinear(x.const_data_ptr(), weight, call.bias, call.dtype, call.m, n, k,
                                            MutableData<float>(call.scratch), call.y.mutable_data_ptr(), current.stream),
              kOp);
  return call.y;
}

}  // namespace prism

STABLE_TORCH_LIBRARY_IMPL(prism, CUDA, m) {
  m.impl("sparse24_dual_shift_linear", TORCH_BOX(&prism::Sparse24DualShiftLinearCuda));
}
