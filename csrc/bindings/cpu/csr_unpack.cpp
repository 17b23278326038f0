#include "../../cpu/csr_unpack.h"

#include "csr_common.h"

namespace prism {

Tensor CsrUnpackCpu(const Tensor& values, const Tensor& columns, const Tensor& row_offsets, int64_t k) {
  const cpu::CsrRows weight = CheckCsr(values, columns, row_offsets, k, "csr_unpack");
  const int64_t n = row_offsets.numel() - 1;
  Tensor dense = torch::stable::new_empty(values, {n, k});
  void* out = dense.mutable_data_ptr();
  const cpu::CsrUnpackFn kernel = cpu::PickCsrUnpack();
  torch::stable::parallel_for(0, n, 16, [&](int64_t begin, int64_t end) { kernel(weight, begin, end, out); });
  return dense;
}

}  // namespace prism

STABLE_TORCH_LIBRARY_IMPL(prism, CPU, m) { m.impl("csr_unpack", TORCH_BOX(&prism::CsrUnpackCpu)); }
