#include "../../cuda/csr_unpack.cuh"

#include "csr_common.h"

namespace prism {

Tensor CsrUnpackCuda(const Tensor& values, const Tensor& columns, const Tensor& row_offsets, int64_t k) {
  const cuda::CsrRows weight = CheckCsrOnDevice(values, columns, row_offsets, k, "csr_unpack");
  const CurrentStream current(values);
  Tensor dense = torch::stable::new_empty(values, {weight.n, k});
  CheckLaunch(cuda::CsrUnpack(weight, dense.mutable_data_ptr(), current.stream), "csr_unpack");
  return dense;
}

}  // namespace prism

STABLE_TORCH_LIBRARY_IMPL(prism, CUDA, m) { m.impl("csr_unpack", TORCH_BOX(&prism::CsrUnpackCuda)); }
