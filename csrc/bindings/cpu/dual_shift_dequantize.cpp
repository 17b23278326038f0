#include "../../cpu/dual_shift_dequantize.h"

#include "quantized.h"

namespace prism {

Tensor DualShiftDequantizeCpu(const Tensor& codes, const Tensor& scale, const Tensor& zero, const Tensor& column_scale,
                              int64_t n, int64_t bits, int64_t group_size, std::string codebook, ScalarType dtype) {
  constexpr const char* kOp = "dual_shift_dequantize";
  cpu::DualShiftDequantizeArgs args;
  args.codebook = ParseCodebook(codebook, bits, kOp);
  STD_TORCH_CHECK(n >= 0 && column_scale.dim() == 1 && group_size >= 1, kOp,
                  ": needs n >= 0, column_scale [k], group_size >= 1");
  args.bits = static_cast<int>(bits);
  args.n = n;
  args.k = column_scale.size(0);
  args.group_size = group_size;
  args.groups = CeilDiv(args.k, group_size);
  CheckTensor(codes, ScalarType::Byte, kOp, "codes");
  CheckNumel(codes, NumPanels(n) * PanelCodeBytes(args.k, args.bits), kOp, "codes");
  CheckTensor(column_scale, ScalarType::BFloat16, kOp, "column_scale");
  CheckPanelGrid(scale, zero, NumPanels(n), args.groups, args.bits, args.codebook, kOp);
  Tensor weight = torch::stable::new_empty(codes, {n, args.k}, dtype);
  args.dtype = FloatDType(weight, kOp, "dtype");
  args.codes = ConstData<uint8_t>(codes);
  args.scale = ConstData<uint16_t>(scale);
  args.zero = ConstData<uint8_t>(zero);
  args.weight = weight.mutable_data_ptr();
  const std::vector<float> factors = ToFloats(column_scale, NumBlocks32(args.k) * kBlockColumns - args.k);
  args.column_scale = factors.data();
  const cpu::DualShiftDequantizeFn kernel = cpu::PickDualShiftDequantize();
  torch::stable::parallel_for(0, NumPanels(n), RowGrain(kPanelRows * args.k),
                              [&](int64_t begin, int64_t end) { kernel(args, begin, end); });
  return weight;
}

}  // namespace prism

STABLE_TORCH_LIBRARY_IMPL(prism, CPU, m) { m.impl("dual_shift_dequantize", TORCH_BOX(&prism::DualShiftDequantizeCpu)); }
