#include "../../cpu/bitmap_linear.h"

#include "bitmap_common.h"
#include "quad_linear.h"

namespace prism {

Tensor BitmapLinearCpu(const Tensor& x, const Tensor& bitmap, const Tensor& values, const Tensor& panel_offsets,
                       const std::optional<Tensor>& bias, int64_t n) {
  constexpr const char* kOp = "bitmap_linear";
  const DType dtype = FloatDType(x, kOp, "x"), values_dtype = FloatDType(values, kOp, "values");
  STD_TORCH_CHECK(x.dim() == 2, kOp, ": needs x [m, k]");
  const int64_t m = x.size(0), k = x.size(1);
  CheckBitmap(bitmap, n, k, cpu::kPairColumns, kOp);
  CheckPanelOffsets(panel_offsets, NumPanels(n), values.numel(), kOp);
  const cpu::BitmapValues weight{ConstData<uint8_t>(bitmap), static_cast<const uint8_t*>(values.const_data_ptr()),
                                 ConstData<int64_t>(panel_offsets), values.numel(), cpu::NumPairs(k), values_dtype};
  const cpu::QuadGrid one_group{nullptr, nullptr, 1, k, 8, Codebook::kUniform};
  const std::vector<float> shift = PaddedBias(bias, x, n, kOp);
  Tensor y = torch::stable::new_empty(x, {m, n});
  const cpu::Arithmetic arithmetic = cpu::BitmapArithmetic(dtype, values_dtype);
  const cpu::BitmapLinearKernel& kernel = cpu::PickBitmapLinear(arithmetic);
  if (m == 0 || n == 0 || k == 0) {
    StoreBias(shift, m, n, dtype, y.mutable_data_ptr());
    return y;
  }
  cpu::CallQuadLinear(kernel, weight, one_group, arithmetic, {x.const_data_ptr(), dtype, m, k, nullptr, false},
                shift.empty() ? nullptr : shift.data(), n, y.mutable_data_ptr(), TorchParallel());
  return y;
}

}  // namespace prism

STABLE_TORCH_LIBRARY_IMPL(prism, CPU, m) { m.impl("bitmap_linear", TORCH_BOX(&prism::BitmapLinearCpu)); }
