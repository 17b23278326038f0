#include "../../cpu/dual_shift_unpack.h"

#include "quantized.h"

namespace prism {

Tensor DualShiftUnpackCpu(const Tensor& packed, int64_t n, int64_t k, int64_t bits) {
  constexpr const char* kOp = "dual_shift_unpack";
  CheckTensor(packed, ScalarType::Byte, kOp, "packed");
  STD_TORCH_CHECK(n >= 0 && k >= 0 && IsCodeWidth(bits), kOp, ": needs n and k >= 0 and a known width");
  CheckNumel(packed, NumPanels(n) * PanelCodeBytes(k, static_cast<int>(bits)), kOp, "packed");
  cpu::DualShiftUnpackArgs args;
  args.packed = ConstData<uint8_t>(packed);
  args.n = n;
  args.k = k;
  args.bits = static_cast<int>(bits);
  Tensor codes = torch::stable::new_empty(packed, {n, k});
  args.codes = MutableData<uint8_t>(codes);
  const cpu::DualShiftUnpackFn kernel = cpu::PickDualShiftUnpack();
  torch::stable::parallel_for(0, NumPanels(n), RowGrain(kPanelRows * k),
                              [&](int64_t begin, int64_t end) { kernel(args, begin, end); });
  return codes;
}

}  // namespace prism

STABLE_TORCH_LIBRARY_IMPL(prism, CPU, m) { m.impl("dual_shift_unpack", TORCH_BOX(&prism::DualShiftUnpackCpu)); }
