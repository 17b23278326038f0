#include "../../cpu/csr_linear.h"

#include <memory>

#include "csr_common.h"

namespace prism {

Tensor CsrLinearCpu(const Tensor& x, const Tensor& values, const Tensor& columns, const Tensor& row_offsets,
                    std::optional<Tensor> bias) {
  const char* op = "csr_linear";
  const DType dtype = FloatDType(x, op, "x");
  STD_TORCH_CHECK(x.dim() == 2, op, ": x must have 2 dimensions");
  const int64_t m = x.size(0), k = x.size(1), n = row_offsets.numel() - 1;
  const cpu::CsrRows weight = CheckCsr(values, columns, row_offsets, k, op);
  if (bias.has_value()) {
    CheckTensor(*bias, x.scalar_type(), op, "bias");
    CheckNumel(*bias, n, op, "bias");
  }
  Tensor y = torch::stable::new_empty(x, {m, n});
  if (m == 0) return y;
  const cpu::CsrLinearKernel kernel = cpu::PickCsrLinear();
  const auto size = static_cast<size_t>(cpu::CsrActivations(kernel, m, k));
  const std::unique_ptr<float[]> packed(new float[size]);  // not set to 0: PackCsrActivations writes every element
  torch::stable::parallel_for(0, CeilDiv(m, kernel.lanes), 1, [&](int64_t begin, int64_t end) {
    cpu::PackCsrActivations(kernel, x.const_data_ptr(), dtype, m, k, begin, end, packed.get());
  });
  const cpu::CsrLinearArgs args{packed.get(), bias.has_value() ? bias->const_data_ptr() : nullptr, y.mutable_data_ptr(),
                                m, n, dtype};
  const int64_t grain = std::max<int64_t>(16, 32768 / std::max<int64_t>(k, 1));
  torch::stable::parallel_for(0, n, grain, [&](int64_t begin, int64_t end) { kernel.run(weight, args, begin, end); });
  return y;
}

}  // namespace prism

STABLE_TORCH_LIBRARY_IMPL(prism, CPU, m) { m.impl("csr_linear", TORCH_BOX(&prism::CsrLinearCpu)); }
