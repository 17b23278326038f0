#include "../../cuda/dual_shift_quantize.cuh"

#include "dual_shift_common.h"

namespace prism {

std::tuple<Tensor, Tensor, Tensor> DualShiftQuantizeCuda(const Tensor& weight, const Tensor& column_scale,
                                                         const std::optional<Tensor>& mask, int64_t bits,
                                                         int64_t group_size, std::string codebook) {
  constexpr const char* kOp = "dual_shift_quantize";
  cuda::DualShiftQuantizeArgs args;
  args.codebook = ParseCodebook(codebook, bits, kOp);
  args.dtype = FloatDType(weight, kOp, "weight");
  STD_TORCH_CHECK(weight.dim() == 2 && group_size >= 1, kOp, ": needs weight [n, k] and group_size >= 1");
  args.n = weight.size(0), args.k = weight.size(1), args.group_size = group_size;
  args.bits = static_cast<int>(bits);
  CheckTensor(column_scale, ScalarType::BFloat16, kOp, "column_scale");
  CheckNumel(column_scale, args.k, kOp, "column_scale");
  CheckPlaced(column_scale, weight, 2, kOp, "column_scale");
  if (mask.has_value()) {
    CheckTensor(*mask, ScalarType::Bool, kOp, "mask");
    CheckNumel(*mask, args.n * args.k, kOp, "mask");
    CheckPlaced(*mask, weight, 1, kOp, "mask");
    args.mask = ConstData<bool>(*mask);
  }
  const CurrentStream current(weight);
  const int64_t groups = CeilDiv(args.k, group_size);
  Tensor codes = torch::stable::new_empty(weight, {args.n, args.k}, ScalarType::Byte);
  Tensor scale = torch::stable::new_empty(weight, {args.n, groups}, ScalarType::BFloat16);
  Tensor zero = torch::stable::new_empty(weight, {args.n, args.codebook == Codebook::kUniform ? groups : 0}, ScalarType::Byte);
  args.weight = weight.const_data_ptr();
  args.column_scale = ConstData<uint16_t>(column_scale);
  args.codes = MutableData<uint8_t>(codes);
  args.scale = MutableData<uint16_t>(scale);
  args.zero = MutableData<uint8_t>(zero);
  CheckLaunch(cuda::DualShiftQuantize(args, current.stream), kOp);
  return {codes, scale, zero};
}

}  // namespace prism

STABLE_TORCH_LIBRARY_IMPL(prism, CUDA, m) { m.impl("dual_shift_quantize", TORCH_BOX(&prism::DualShiftQuantizeCuda)); }
