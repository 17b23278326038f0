#include "../../cpu/bitmap_dual_shift_dequantize.h"

#include "bitmap_common.h"
#include "quantized.h"

namespace prism {

Tensor BitmapDualShiftDequantizeCpu(const Tensor& bitmap, const Tensor& codes, const Tensor& panel_offsets,
                                    const Tensor& scale, const Tensor& zero, const Tensor& column_scale, int64_t n,
                                    int64_t bits, int64_t group_size, std::string codebook, ScalarType dtype) {
  constexpr const char* kOp = "bitmap_dual_shift_dequantize";
  cpu::BitmapDualShiftDequantizeArgs args;
  cpu::DualShiftDequantizeArgs& grid = args.grid;
  grid.codebook = ParseCodebook(codebook, bits, kOp);
  STD_TORCH_CHECK(column_scale.dim() == 1 && group_size >= 1, kOp, ": needs column_scale [k] and group_size >= 1");
  grid.bits = static_cast<int>(bits);
  grid.n = n;
  grid.k = column_scale.size(0);
  grid.group_size = group_size;
  grid.groups = CeilDiv(grid.k, group_size);
  CheckBitmap(bitmap, n, grid.k, kQuadColumns, kOp);
  CheckTensor(codes, ScalarType::Byte, kOp, "codes");
  CheckPanelOffsets(panel_offsets, NumPanels(n), codes.numel(), kOp);
  CheckTensor(column_scale, ScalarType::BFloat16, kOp, "column_scale");
  CheckPanelGrid(scale, zero, NumPanels(n), grid.groups, grid.bits, grid.codebook, kOp);
  Tensor weight = torch::stable::new_empty(codes, {n, grid.k}, dtype);
  grid.dtype = FloatDType(weight, kOp, "dtype");
  args.bitmap = ConstData<uint8_t>(bitmap);
  args.codes = ConstData<uint8_t>(codes);
  args.panel_offsets = ConstData<int64_t>(panel_offsets);
  args.size = codes.numel();
  grid.scale = ConstData<uint16_t>(scale);
  grid.zero = ConstData<uint8_t>(zero);
  grid.weight = weight.mutable_data_ptr();
  const std::vector<float> factors = ToFloats(column_scale, NumBlocks32(grid.k) * kBlockColumns - grid.k);
  grid.column_scale = factors.data();
  const cpu::BitmapDualShiftDequantizeFn kernel = cpu::PickBitmapDualShiftDequantize();
  torch::stable::parallel_for(0, NumPanels(n), PanelGrain(grid.k),
                              [&](int64_t begin, int64_t end) { kernel(args, begin, end); });
  return weight;
}

}  // namespace prism

STABLE_TORCH_LIBRARY_IMPL(prism, CPU, m) {
  m.impl("bitmap_dual_shift_dequantize", TORCH_BOX(&prism::BitmapDualShiftDequantizeCpu));
}
