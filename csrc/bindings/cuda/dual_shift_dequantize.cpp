#include "../../cuda/dual_shift_dequantize.cuh"

#include "dual_shift_common.h"

namespace prism {

Tensor DualShiftDequantizeCuda(const Tensor& codes, const Tensor& scale, const Tensor& zero, const Tensor& column_scale,
                               int64_t n, int64_t bits, int64_t group_size, std::string codebook, ScalarType dtype) {
  constexpr const char* kOp = "dual_shift_dequantize";
  cuda::DualShiftDequantizeArgs args;
  args.codebook = ParseCodebook(codebook, bits, kOp);
  STD_TORCH_CHECK(column_scale.dim() == 1, kOp, ": needs column_scale [k]");
  args.n = n, args.k = column_scale.size(0), args.group_size = group_size;
  CheckDualShift(codes, scale, zero, column_scale, codes, n, args.k, bits, group_size, args.codebook, kOp);
  const CurrentStream current(codes);
  Tensor weight = torch::stable::new_empty(codes, {n, args.k}, dtype);
  args.dtype = FloatDType(weight, kOp, "dtype");
  args.bits = static_cast<int>(bits);
  args.codes = ConstData<uint8_t>(codes);
  args.scale = ConstData<uint16_t>(scale);
  args.zero = ConstData<uint8_t>(zero);
  args.column_scale = ConstData<uint16_t>(column_scale);
  args.weight = weight.mutable_data_ptr();
  CheckLaunch(cuda::DualShiftDequantize(args, current.stream), kOp);
  return weight;
}

}  // namespace prism

STABLE_TORCH_LIBRARY_IMPL(prism, CUDA, m) { m.impl("dual_shift_dequantize", TORCH_BOX(&prism::DualShiftDequantizeCuda)); }
