#include "../../cuda/bitmap_pack.cuh"

#include "bitmap_common.h"

namespace prism {

std::tuple<Tensor, Tensor, Tensor> BitmapPackCuda(const Tensor& weight, const std::optional<Tensor>& mask) {
  constexpr const char* kOp = "bitmap_pack";
  cuda::BitmapPackArgs args;
  args.element_bytes = DTypeBytes(FloatDType(weight, kOp, "weight"));
  STD_TORCH_CHECK(weight.dim() == 2, kOp, ": weight must be [n, k]");
  args.n = weight.size(0);
  args.k = weight.size(1);
  args.weight = weight.const_data_ptr();
  if (mask.has_value()) {
    CheckTensor(*mask, ScalarType::Bool, kOp, "mask");
    CheckNumel(*mask, args.n * args.k, kOp, "mask");
    CheckOnDevice(*mask, weight, kOp, "mask");
    args.mask = ConstData<bool>(*mask);
  }
  const CurrentStream current(weight);
  const int64_t panels = NumPanels(args.n);
  Tensor bitmap = torch::stable::new_empty(weight, {panels, cpu::NumPairs(args.k), cpu::kPairMaskBytes}, ScalarType::Byte);
  Tensor panel_offsets = torch::stable::new_empty(weight, {panels + 1}, ScalarType::Long);
  args.bitmap = MutableData<uint8_t>(bitmap);
  args.panel_offsets = MutableData<int64_t>(panel_offsets);
  CheckLaunch(cuda::BitmapMark(args, current.stream), kOp);
  Tensor values = torch::stable::new_empty(weight, {LastOffset(panel_offsets, current.stream, kOp)});
  args.values = values.mutable_data_ptr();
  CheckLaunch(cuda::BitmapGather(args, current.stream), kOp);
  return {bitmap, values, panel_offsets};
}

}  // namespace prism

STABLE_TORCH_LIBRARY_IMPL(prism, CUDA, m) { m.impl("bitmap_pack", TORCH_BOX(&prism::BitmapPackCuda)); }
