#include "../../cpu/bitmap_dual_shift_pack.h"

#include "../../common/codebooks.h"
#include "bitmap_common.h"

namespace prism {

std::tuple<Tensor, Tensor, Tensor> BitmapDualShiftPackCpu(const Tensor& codes, const Tensor& mask, int64_t bits) {
  constexpr const char* kOp = "bitmap_dual_shift_pack";
  CheckTensor(codes, ScalarType::Byte, kOp, "codes");
  CheckTensor(mask, ScalarType::Bool, kOp, "mask");
  STD_TORCH_CHECK(codes.dim() == 2 && IsCodeWidth(bits), kOp, ": needs [n, k] and a known width");
  cpu::BitmapDualShiftPackArgs args;
  args.n = codes.size(0);
  args.k = codes.size(1);
  args.bits = static_cast<int>(bits);
  CheckNumel(mask, args.n * args.k, kOp, "mask");
  args.codes = ConstData<uint8_t>(codes);
  args.mask = ConstData<bool>(mask);
  const int64_t panels = NumPanels(args.n), grain = PanelGrain(args.k);
  Tensor bitmap = torch::stable::new_empty(codes, {panels, NumQuads(args.k), cpu::kQuadMaskBytes});
  Tensor panel_offsets = torch::stable::new_empty(codes, {panels + 1}, ScalarType::Long);
  args.bitmap = MutableData<uint8_t>(bitmap);
  args.panel_offsets = MutableData<int64_t>(panel_offsets);
  const cpu::BitmapDualShiftPackKernel& kernel = *cpu::PickBitmapDualShiftPack();
  torch::stable::parallel_for(0, panels, grain, [&](int64_t begin, int64_t end) { kernel.mark(args, begin, end); });
  Tensor packed = torch::stable::new_empty(codes, {SumOffsets(args.panel_offsets, panels)});
  args.packed = MutableData<uint8_t>(packed);
  torch::stable::parallel_for(0, panels, grain, [&](int64_t begin, int64_t end) { kernel.gather(args, begin, end); });
  return {bitmap, packed, panel_offsets};
}

}  // namespace prism

STABLE_TORCH_LIBRARY_IMPL(prism, CPU, m) {
  m.impl("bitmap_dual_shift_pack", TORCH_BOX(&prism::BitmapDualShiftPackCpu));
}
