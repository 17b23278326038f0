#include "../../cpu/tiered_linear.h"

#include <memory>

#include "tiered_common.h"

namespace prism {

Tensor TieredLinearCpu(const Tensor& x, const Tensor& tiers, const Tensor& masks, const Tensor& values,
                       const Tensor& panel_offsets, std::optional<Tensor> bias, int64_t n) {
  const char* op = "tiered_linear";
  const DType dtype = FloatDType(x, op, "x");
  STD_TORCH_CHECK(x.dim() == 2, op, ": x must have 2 dimensions");
  const int64_t m = x.size(0), k = x.size(1);
  const cpu::TieredBlocks weight = CheckTiered(tiers, masks, values, panel_offsets, n, k, op);
  if (bias.has_value()) {
    CheckTensor(*bias, x.scalar_type(), op, "bias");
    CheckNumel(*bias, n, op, "bias");
  }
  Tensor y = torch::stable::new_empty(x, {m, n});
  if (m == 0) return y;
  const cpu::TieredLinearKernel kernel = cpu::PickTieredLinear(weight, dtype, m);
  const auto bytes = static_cast<size_t>(cpu::ActivationBytes(kernel, m, k));
  const std::unique_ptr<uint8_t[]> packed(new uint8_t[bytes]);  // not set to 0: PackActivations writes every byte
  const int64_t num_groups = cpu::TokenGroups(m, kernel.group_limit).count;
  torch::stable::parallel_for(0, num_groups, 1, [&](int64_t begin, int64_t end) {
    cpu::PackActivations(kernel, x.const_data_ptr(), dtype, m, k, begin, end, packed.get());
  });
  const cpu::TieredLinearArgs args{packed.get(), bias.has_value() ? bias->const_data_ptr() : nullptr,
                                   y.mutable_data_ptr(), m, n, dtype};
  const int64_t grain = std::max<int64_t>(2, 2048 / std::max<int64_t>(k * m, 1));
  torch::stable::parallel_for(0, NumPanels(n), grain, [&](int64_t begin, int64_t end) { kernel.run(weight, args, begin, end); });
  return y;
}

}  // namespace prism

STABLE_TORCH_LIBRARY_IMPL(prism, CPU, m) { m.impl("tiered_linear", TORCH_BOX(&prism::TieredLinearCpu)); }
