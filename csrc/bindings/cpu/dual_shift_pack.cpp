#include "../../cpu/dual_shift_pack.h"

#include "quantized.h"

namespace prism {

Tensor DualShiftPackCpu(const Tensor& codes, int64_t bits) {
  constexpr const char* kOp = "dual_shift_pack";
  CheckTensor(codes, ScalarType::Byte, kOp, "codes");
  STD_TORCH_CHECK(codes.dim() == 2 && IsCodeWidth(bits), kOp, ": needs [n, k] and a known width");
  cpu::DualShiftPackArgs args;
  args.codes = ConstData<uint8_t>(codes);
  args.n = codes.size(0);
  args.k = codes.size(1);
  args.bits = static_cast<int>(bits);
  Tensor packed = torch::stable::new_empty(codes, {NumPanels(args.n), NumBlocks32(args.k), bits, kQuadBytes});
  args.packed = MutableData<uint8_t>(packed);
  const cpu::DualShiftPackFn kernel = cpu::PickDualShiftPack();
  torch::stable::parallel_for(0, NumPanels(args.n), RowGrain(kPanelRows * args.k),
                              [&](int64_t begin, int64_t end) { kernel(args, begin, end); });
  return packed;
}

}  // namespace prism

STABLE_TORCH_LIBRARY_IMPL(prism, CPU, m) { m.impl("dual_shift_pack", TORCH_BOX(&prism::DualShiftPackCpu)); }
