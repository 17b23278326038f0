#include "../../cpu/bitmap_linear.h"

#include "bitmap_common.h"

namespace prism {
Tensor BitmapLinearCpu(const Tensor& x, const Tensor& bitmap, const Tensor& values, const Tensor& row_offsets,
                       std::optional<Tensor> bias) {
  const char* op = "bitmap_linear";
  const DType dtype = FloatDType(x, op, "x");
  STD_TORCH_CHECK(x.dim() == 2, op, ": x must have 2 dimensions");
  const int64_t m = x.size(0), k = x.size(1);
  const cpu::BitmapValues weight = CheckBitmapValues(bitmap, values, row_offsets, k, op);
  const int64_t n = bitmap.size(0);
  const void* bias_data = CheckBias(bias, x, n, op);
  Tensor y = torch::stable::new_empty(x, {m, n});
  if (const auto kernel = cpu::PickBitmapLinearBFloat16(weight, dtype)) {
    const auto activations = cpu::BFloat16Activations(x.const_data_ptr(), m, k);
    RunBitmapLinear(kernel, weight, activations, bias_data, dtype, m, n, y.mutable_data_ptr());
  } else {
    const auto activations = cpu::FloatActivations(x.const_data_ptr(), dtype, m, k, nullptr);
    RunBitmapLinear(cpu::PickBitmapLinear(), weight, activations, bias_data, dtype, m, n, y.mutable_data_ptr());
  }
  return y;
}

}  // namespace prism

STABLE_TORCH_LIBRARY_IMPL(prism, CPU, m) { m.impl("bitmap_linear", TORCH_BOX(&prism::BitmapLinearCpu)); }
