#include "../../cpu/dual_shift_linear.h"

#include "quad_linear.h"

namespace prism {

Tensor DualShiftLinearCpu(const Tensor& x, const Tensor& codes, const Tensor& scale, const Tensor& zero,
                          const Tensor& column_scale, const std::optional<Tensor>& bias, int64_t n, int64_t bits,
                          int64_t group_size, std::string codebook, std::optional<int64_t> activation_bits) {
  constexpr const char* kOp = "dual_shift_linear";
  const DType dtype = FloatDType(x, kOp, "x");
  cpu::QuadGrid grid;
  grid.codebook = ParseCodebook(codebook, bits, kOp);
  STD_TORCH_CHECK(x.dim() == 2 && n >= 0 && group_size >= 1, kOp, ": needs x [m, k], n >= 0, group_size >= 1");
  const int64_t m = x.size(0), k = x.size(1);
  grid.bits = static_cast<int>(bits);
  grid.group_size = group_size;
  grid.groups = CeilDiv(k, group_size);
  const cpu::PlaneCodes weight{ConstData<uint8_t>(codes), grid.bits, NumBlocks32(k)};
  CheckTensor(codes, ScalarType::Byte, kOp, "codes");
  CheckNumel(codes, NumPanels(n) * weight.blocks * bits * kQuadBytes, kOp, "codes");
  CheckPanelGrid(scale, zero, NumPanels(n), grid.groups, grid.bits, grid.codebook, kOp);
  CheckTensor(column_scale, ScalarType::BFloat16, kOp, "column_scale");
  CheckNumel(column_scale, k, kOp, "column_scale");
  CheckInt8(activation_bits, grid, k, kOp);
  grid.scale = ConstData<uint16_t>(scale);
  grid.zero = ConstData<uint8_t>(zero);
  const std::vector<float> shift = PaddedBias(bias, x, n, kOp), factors = ToFloats(column_scale);
  Tensor y = torch::stable::new_empty(x, {m, n});
  const cpu::Arithmetic arithmetic = cpu::ArithmeticFor(dtype, activation_bits.has_value(), grid, m, k,
                                                         cpu::DualShiftLinearInt16Tokens(grid.bits));
  const cpu::DualShiftLinearKernel& kernel = cpu::PickDualShiftLinear(arithmetic, group_size, k);
  if (m == 0 || n == 0 || k == 0) {
    StoreBias(shift, m, n, dtype, y.mutable_data_ptr());
    return y;
  }
  cpu::CallQuadLinear(kernel, weight, grid, arithmetic, {x.const_data_ptr(), dtype, m, k, factors.data(), false, 0},
                shift.empty() ? nullptr : shift.data(), n, y.mutable_data_ptr(), TorchParallel());
  return y;
}

}  // namespace prism

STABLE_TORCH_LIBRARY_IMPL(prism, CPU, m) { m.impl("dual_shift_linear", TORCH_BOX(&prism::DualShiftLinearCpu)); }
