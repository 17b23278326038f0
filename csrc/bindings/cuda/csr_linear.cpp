#include "../../cuda/csr_linear.cuh"

#include "csr_common.h"

namespace prism {

Tensor CsrLinearCuda(const Tensor& x, const Tensor& values, const Tensor& columns, const Tensor& row_offsets,
                     std::optional<Tensor> bias) {
  const char* op = "csr_linear";
  const DType dtype = FloatDType(x, op, "x");
  STD_TORCH_CHECK(x.dim() == 2, op, ": x must have 2 dimensions");
  const int64_t m = x.size(0), k = x.size(1);
  const cuda::CsrRows weight = CheckCsrOnDevice(values, columns, row_offsets, k, op);
  STD_TORCH_CHECK(values.get_device_index() == x.get_device_index(), op, ": values must be on the device of x");
  if (bias.has_value()) {
    CheckTensor(*bias, x.scalar_type(), op, "bias");
    CheckNumel(*bias, weight.n, op, "bias");
    STD_TORCH_CHECK(bias->get_device_index() == x.get_device_index(), op, ": bias must be on the device of x");
  }
  const CurrentStream current(x);
  Tensor y = torch::stable::new_empty(x, {m, weight.n});
  Tensor workspace = torch::stable::new_empty(x, {cuda::CsrLinearWorkspace(weight, x.const_data_ptr(), m, dtype)}, ScalarType::Float);
  const cuda::CsrLinearArgs args = {x.const_data_ptr(), bias.has_value() ? bias->const_data_ptr() : nullptr,
                                    y.mutable_data_ptr(), m, dtype, MutableData<float>(workspace)};
  CheckLaunch(cuda::CsrLinear(weight, args, current.stream), op);
  return y;
}

}  // namespace prism

STABLE_TORCH_LIBRARY_IMPL(prism, CUDA, m) { m.impl("csr_linear", TORCH_BOX(&prism::CsrLinearCuda)); }
