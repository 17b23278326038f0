#include "../../cuda/bitmap_dual_shift_pack.cuh"

#include "../../common/codebooks.h"
#include "bitmap_common.h"

namespace prism {

std::tuple<Tensor, Tensor, Tensor> BitmapDualShiftPackCuda(const Tensor& codes, const Tensor& mask, int64_t bits) {
  constexpr const char* kOp = "bitmap_dual_shift_pack";
  CheckTensor(codes, ScalarType::Byte, kOp, "codes");
  CheckTensor(mask, ScalarType::Bool, kOp, "mask");
  STD_TORCH_CHECK(codes.dim() == 2 && IsCodeWidth(bits), kOp, ": needs [n, k] and a known width");
  cuda::BitmapDualShiftPackArgs args;
  args.n = codes.size(0);
  args.k = codes.size(1);
  args.bits = static_cast<int>(bits);
  CheckNumel(mask, args.n * args.k, kOp, "mask");
  CheckOnDevice(mask, codes, kOp, "mask");
  args.codes = ConstData<uint8_t>(codes);
  args.mask = ConstData<bool>(mask);
  const CurrentStream current(codes);
  const int64_t panels = NumPanels(args.n);
  Tensor bitmap = torch::stable::new_empty(codes, {panels, NumQuads(args.k), cpu::kQuadMaskBytes});
  Tensor panel_offsets = torch::stable::new_empty(codes, {panels + 1}, ScalarType::Long);
  args.bitmap = MutableData<uint8_t>(bitmap);
  args.panel_offsets = MutableData<int64_t>(panel_offsets);
  CheckLaunch(cuda::BitmapDualShiftMark(args, current.stream), kOp);
  Tensor packed = torch::stable::new_empty(codes, {LastOffset(panel_offsets, current.stream, kOp)});
  args.packed = MutableData<uint8_t>(packed);
  CheckLaunch(cuda::BitmapDualShiftGather(args, current.stream), kOp);
  return {bitmap, packed, panel_offsets};
}

}  // namespace prism

STABLE_TORCH_LIBRARY_IMPL(prism, CUDA, m) {
  m.impl("bitmap_dual_shift_pack", TORCH_BOX(&prism::BitmapDualShiftPackCuda));
}
