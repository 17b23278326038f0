#include "../../cpu/dual_shift_quantize.h"

#include "quantized.h"

namespace prism {

std::tuple<Tensor, Tensor, Tensor> DualShiftQuantizeCpu(const Tensor& weight, const Tensor& column_scale,
                                                        const std::optional<Tensor>& mask, int64_t bits,
                                                        int64_t group_size, std::string codebook) {
  constexpr const char* kOp = "dual_shift_quantize";
  cpu::DualShiftQuantizeArgs args;
  args.codebook = ParseCodebook(codebook, bits, kOp);
  args.dtype = FloatDType(weight, kOp, "weight");
  STD_TORCH_CHECK(weight.dim() == 2 && group_size >= 1, kOp, ": needs weight [n, k] and group_size >= 1");
  const int64_t n = weight.size(0);
  args.k = weight.size(1);
  args.bits = static_cast<int>(bits);
  args.group_size = group_size;
  args.groups = CeilDiv(args.k, group_size);
  CheckTensor(column_scale, ScalarType::BFloat16, kOp, "column_scale");
  CheckNumel(column_scale, args.k, kOp, "column_scale");
  if (mask.has_value()) {
    CheckTensor(*mask, ScalarType::Bool, kOp, "mask");
    CheckNumel(*mask, n * args.k, kOp, "mask");
    args.mask = ConstData<bool>(*mask);
  }
  Tensor codes = torch::stable::new_empty(weight, {n, args.k}, ScalarType::Byte);
  Tensor scale = torch::stable::new_empty(weight, {n, args.groups}, ScalarType::BFloat16);
  const bool has_zero = args.codebook == Codebook::kUniform;
  Tensor zero = torch::stable::new_empty(weight, {n, has_zero ? args.groups : 0}, ScalarType::Byte);
  args.weight = weight.const_data_ptr();
  args.codes = MutableData<uint8_t>(codes);
  args.scale = MutableData<uint16_t>(scale);
  args.zero = MutableData<uint8_t>(zero);
  const std::vector<float> factors = ToFloats(column_scale);
  args.column_scale = factors.data();
  const cpu::DualShiftQuantizeFn kernel = cpu::PickDualShiftQuantize();
  torch::stable::parallel_for(0, n, RowGrain(args.k), [&](int64_t begin, int64_t end) {
    std::vector<float> scratch(static_cast<size_t>(args.k + cpu::kQuantizeMargin));
    kernel(args, begin, end, scratch.data());
  });
  return {codes, scale, zero};
}

}  // namespace prism

STABLE_TORCH_LIBRARY_IMPL(prism, CPU, m) { m.impl("dual_shift_quantize", TORCH_BOX(&prism::DualShiftQuantizeCpu)); }
