#include "../../cpu/bitmap_dual_shift_linear.h"

#include "bitmap_common.h"

namespace prism {
Tensor BitmapDualShiftLinearCpu(const Tensor& x, const Tensor& bitmap, const Tensor& codes, const Tensor& row_offsets,
                                const Tensor& scale, const Tensor& zero, const Tensor& column_scale,
                                std::optional<Tensor> bias, int64_t bits, int64_t group_size, std::string codebook) {
  const char* op = "bitmap_dual_shift_linear";
  const DType dtype = FloatDType(x, op, "x");
  const cpu::BitmapDualShift weight = CheckBitmapDualShift(bitmap, codes, row_offsets, scale, zero, column_scale, bits,
                                                           group_size, codebook, op);
  STD_TORCH_CHECK(x.dim() == 2 && x.size(1) == weight.k, op, ": x must have as many columns as the weight");
  const int64_t m = x.size(0), n = bitmap.size(0), k = weight.k;
  const void* bias_data = CheckBias(bias, x, n, op);
  Tensor y = torch::stable::new_empty(x, {m, n});
  const uint16_t* columns = ConstData<uint16_t>(column_scale);
  if (const auto kernel = cpu::PickBitmapDualShiftLinearSplit(weight, dtype)) {
    const auto activations = cpu::SplitActivations(x.const_data_ptr(), dtype, m, k, columns);
    RunBitmapLinear(kernel, weight, activations, bias_data, dtype, m, n, y.mutable_data_ptr());
  } else {
    const auto activations = cpu::FloatActivations(x.const_data_ptr(), dtype, m, k, columns);
    RunBitmapLinear(cpu::PickBitmapDualShiftLinear(), weight, activations, bias_data, dtype, m, n, y.mutable_data_ptr());
  }
  return y;
}

}  // namespace prism

STABLE_TORCH_LIBRARY_IMPL(prism, CPU, m) {
  m.impl("bitmap_dual_shift_linear", TORCH_BOX(&prism::BitmapDualShiftLinearCpu));
}
