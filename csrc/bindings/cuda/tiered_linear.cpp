#include "../../cuda/tiered_linear.cuh"

#include "tiered_common.h"

namespace prism {

Tensor TieredLinearCuda(const Tensor& x, const Tensor& tiers, const Tensor& masks, const Tensor& values,
                        const Tensor& panel_offsets, std::optional<Tensor> bias, int64_t n) {
  const char* op = "tiered_linear";
  const DType dtype = FloatDType(x, op, "x");
  STD_TORCH_CHECK(x.dim() == 2, op, ": x must have 2 dimensions");
  const int64_t m = x.size(0), k = x.size(1);
  const cuda::TieredBlocks weight = CheckTieredOnDevice(tiers, masks, values, panel_offsets, n, k, op);
  STD_TORCH_CHECK(values.get_device_index() == x.get_device_index(), op, ": values must be on the device of x");
  if (bias.has_value()) {
    CheckTensor(*bias, x.scalar_type(), op, "bias");
    CheckNumel(*bias, n, op, "bias");
    STD_TORCH_CHECK(bias->get_device_index() == x.get_device_index(), op, ": bias must be on the device of x");
  }
  const CurrentStream current(x);
  Tensor y = torch::stable::new_empty(x, {m, n});
  cuda::TieredLinearArgs args = {x.const_data_ptr(), bias.has_value() ? bias->const_data_ptr() : nullptr,
                                       y.mutable_data_ptr(), m, dtype};
  Tensor scratch = torch::stable::new_empty(x, {cuda::TieredLinearScratch(weight, args)});
  args.scratch = scratch.mutable_data_ptr();
  CheckLaunch(cuda::TieredLinear(weight, args, current.stream), op);
  return y;
}

}  // namespace prism

STABLE_TORCH_LIBRARY_IMPL(prism, CUDA, m) { m.impl("tiered_linear", TORCH_BOX(&prism::TieredLinearCuda)); }
