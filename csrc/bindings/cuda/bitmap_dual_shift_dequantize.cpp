#include "../../cuda/bitmap_dual_shift_dequantize.cuh"

#include "../cpu/quantized.h"
#include "bitmap_common.h"

namespace prism {

Tensor BitmapDualShiftDequantizeCuda(const Tensor& bitmap, const Tensor& codes, const Tensor& panel_offsets,
                                     const Tensor& scale, const Tensor& zero, const Tensor& column_scale, int64_t n,
                                     int64_t bits, int64_t group_size, std::string codebook, ScalarType dtype) {
  constexpr const char* kOp = "bitmap_dual_shift_dequantize";
  cuda::BitmapDualShiftDequantizeArgs args;
  args.codebook = ParseCodebook(codebook, bits, kOp);
  STD_TORCH_CHECK(column_scale.dim() == 1 && group_size >= 1, kOp, ": needs column_scale [k] and group_size >= 1");
  args.bits = static_cast<int>(bits);
  args.n = n;
  args.k = column_scale.size(0);
  args.group_size = group_size;
  args.groups = CeilDiv(args.k, group_size);
  CheckTensor(codes, ScalarType::Byte, kOp, "codes");
  CheckBitmapOnDevice(bitmap, panel_offsets, codes, n, args.k, kQuadColumns, kOp);
  CheckTensor(column_scale, ScalarType::BFloat16, kOp, "column_scale");
  CheckPanelGrid(scale, zero, NumPanels(n), args.groups, args.bits, args.codebook, kOp);
  CheckOnDevice(scale, codes, kOp, "scale");
  CheckOnDevice(zero, codes, kOp, "zero");
  CheckOnDevice(column_scale, codes, kOp, "column_scale");
  const CurrentStream current(codes);
  Tensor weight = torch::stable::new_empty(codes, {n, args.k}, dtype);
  args.dtype = FloatDType(weight, kOp, "dtype");
  args.bitmap = ConstData<uint8_t>(bitmap);
  args.codes = ConstData<uint8_t>(codes);
  args.panel_offsets = ConstData<int64_t>(panel_offsets);
  args.size = codes.numel();
  args.scale = ConstData<uint16_t>(scale);
  args.zero = ConstData<uint8_t>(zero);
  args.column_scale = ConstData<uint16_t>(column_scale);
  args.weight = weight.mutable_data_ptr();
  CheckLaunch(cuda::BitmapDualShiftDequantize(args, current.stream), kOp);
  return weight;
}

}  // namespace prism

STABLE_TORCH_LIBRARY_IMPL(prism, CUDA, m) {
  m.impl("bitmap_dual_shift_dequantize", TORCH_BOX(&prism::BitmapDualShiftDequantizeCuda));
}
