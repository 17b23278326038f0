#include "../../cuda/bitmap_dual_shift_linear.cuh"

#include "../cpu/quantized.h"
#include "bitmap_common.h"

namespace prism {

Tensor BitmapDualShiftLinearCuda(const Tensor& x, const Tensor& bitmap, const Tensor& codes, const Tensor& panel_offsets,
                                 const Tensor& scale, const Tensor& zero, const Tensor& column_scale,
                                 const std::optional<Tensor>& bias, int64_t n, int64_t bits, int64_t group_size,
                                 std::string codebook, std::optional<int64_t> activation_bits) {
  constexpr const char* kOp = "bitmap_dual_shift_linear";
  cuda::BitmapDualShiftLinearArgs args;
  args.dtype = FloatDType(x, kOp, "x");
  args.codebook = ParseCodebook(codebook, bits, kOp);
  STD_TORCH_CHECK(x.dim() == 2 && group_size >= 1, kOp, ": needs x [m, k], group_size >= 1");
  STD_TORCH_CHECK(!activation_bits.has_value() || *activation_bits == 8, kOp, ": activation_bits must be 8 or None");
  STD_TORCH_CHECK(!activation_bits.has_value() || args.codebook == Codebook::kUniform, kOp,
                  ": activation_bits needs the uniform codebook");
  args.m = x.size(0);
  args.n = n;
  args.k = x.size(1);
  args.bits = static_cast<int>(bits);
  args.group_size = group_size;
  args.groups = CeilDiv(args.k, group_size);
  args.quantized = activation_bits.has_value();
  CheckBitmapOnDevice(bitmap, panel_offsets, x, n, args.k, kQuadColumns, kOp);
  CheckTensor(codes, ScalarType::Byte, kOp, "codes");
  CheckPanelGrid(scale, zero, NumPanels(n), args.groups, args.bits, args.codebook, kOp);
  CheckTensor(column_scale, ScalarType::BFloat16, kOp, "column_scale");
  CheckNumel(column_scale, args.k, kOp, "column_scale");
  CheckOnDevice(codes, x, kOp, "codes");
  CheckOnDevice(scale, x, kOp, "scale");
  CheckOnDevice(zero, x, kOp, "zero");
  CheckOnDevice(column_scale, x, kOp, "column_scale");
  CheckBiasOnDevice(bias, x, n, kOp);
  const CurrentStream current(x);
  Tensor y = torch::stable::new_empty(x, {args.m, n});
  if (args.m == 0 || n == 0) return y;
  if (args.k == 0) return BiasOnly(y, bias, current, kOp);
  args.x = x.const_data_ptr();
  args.bitmap = ConstData<uint8_t>(bitmap);
  args.codes = ConstData<uint8_t>(codes);
  args.panel_offsets = ConstData<int64_t>(panel_offsets);
  args.scale = ConstData<uint16_t>(scale);
  args.zero = ConstData<uint8_t>(zero);
  args.column_scale = ConstData<uint16_t>(column_scale);
  args.bias = bias.has_value() ? bias->const_data_ptr() : nullptr;
  args.size = codes.numel();
  args.y = y.mutable_data_ptr();
  Tensor scratch = torch::stable::new_empty(x, {cuda::BitmapDualShiftLinearScratchBytes(args)}, ScalarType::Byte);
  args.scratch = scratch.mutable_data_ptr();
  CheckLaunch(cuda::BitmapDualShiftLinear(args, current.stream), kOp);
  return y;
}

}  // namespace prism

STABLE_TORCH_LIBRARY_IMPL(prism, CUDA, m) {
  m.impl("bitmap_dual_shift_linear", TORCH_BOX(&prism::BitmapDualShiftLinearCuda));
}
