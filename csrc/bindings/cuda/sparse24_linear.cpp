#include "../../cuda/sparse24_linear.cuh"

#include "sparse24_common.h"

namespace prism {

Tensor Sparse24LinearCuda(const Tensor& x, const Tensor& values, const Tensor& columns, const std::optional<Tensor>& bias,
                          int64_t n) {
  constexpr const char* kOp = "sparse24_linear";
  CheckSparseActivations(x, kOp);
  CheckSparse24(values, columns, n, x.size(1), false, kOp);
  STD_TORCH_CHECK(values.scalar_type() == x.scalar_type(), kOp, ": values must have the dtype of x");
  const CurrentStream current(x);
  const SparseCall call = PrepareSparseCall(x, bias, n, cuda::Sparse24LinearScratch(x.size(0), n, x.size(1)), kOp);
  CheckLaunch(cuda::Sparse24Linear(x.const_data_ptr(), values.const_data_ptr(), ConstData<uint32_t>(columns), call.bias,
                                   call.dtype, call.m, n, call.k, MutableData<float>(call.scratch),
                                   call.y.mutable_data_ptr(), current.stream), kOp);
  return call.y;
}

}  // namespace prism

STABLE_TORCH_LIBRARY_IMPL(prism, CUDA, m) { m.impl("sparse24_linear", TORCH_BOX(&prism::Sparse24LinearCuda)); }
