#include "../../cpu/bitmap_pack.h"

#include "bitmap_common.h"

namespace prism {

std::tuple<Tensor, Tensor, Tensor> BitmapPackCpu(const Tensor& weight, const std::optional<Tensor>& mask) {
  constexpr const char* kOp = "bitmap_pack";
  cpu::BitmapPackArgs args;
  args.element_bytes = DTypeBytes(FloatDType(weight, kOp, "weight"));
  STD_TORCH_CHECK(weight.dim() == 2, kOp, ": weight must be [n, k]");
  args.n = weight.size(0);
  args.k = weight.size(1);
  args.weight = weight.const_data_ptr();
  if (mask.has_value()) {
    CheckTensor(*mask, ScalarType::Bool, kOp, "mask");
    CheckNumel(*mask, args.n * args.k, kOp, "mask");
    args.mask = ConstData<bool>(*mask);
  }
  const int64_t panels = NumPanels(args.n), grain = PanelGrain(args.k);
  Tensor bitmap = torch::stable::new_empty(weight, {panels, cpu::NumPairs(args.k), cpu::kPairMaskBytes}, ScalarType::Byte);
  Tensor panel_offsets = torch::stable::new_empty(weight, {panels + 1}, ScalarType::Long);
  args.bitmap = MutableData<uint8_t>(bitmap);
  args.panel_offsets = MutableData<int64_t>(panel_offsets);
  const cpu::BitmapPackKernel& kernel = *cpu::PickBitmapPack();
  torch::stable::parallel_for(0, panels, grain, [&](int64_t begin, int64_t end) { kernel.mark(args, begin, end); });
  Tensor values = torch::stable::new_empty(weight, {SumOffsets(args.panel_offsets, panels)});
  args.values = values.mutable_data_ptr();
  torch::stable::parallel_for(0, panels, grain, [&](int64_t begin, int64_t end) { kernel.gather(args, begin, end); });
  return {bitmap, values, panel_offsets};
}

}  // namespace prism

STABLE_TORCH_LIBRARY_IMPL(prism, CPU, m) { m.impl("bitmap_pack", TORCH_BOX(&prism::BitmapPackCpu)); }
