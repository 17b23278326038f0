#include "../../cuda/dual_shift_pack.cuh"

#include "dual_shift_common.h"

namespace prism {

Tensor DualShiftPackCuda(const Tensor& codes, int64_t bits) {
  constexpr const char* kOp = "dual_shift_pack";
  CheckTensor(codes, ScalarType::Byte, kOp, "codes");
  STD_TORCH_CHECK(codes.dim() == 2 && IsCodeWidth(bits), kOp, ": needs [n, k] and a known width");
  const CurrentStream current(codes);
  const int64_t n = codes.size(0), k = codes.size(1);
  Tensor packed = torch::stable::new_empty(codes, {NumPanels(n), NumBlocks32(k), bits, kQuadBytes});
  CheckLaunch(cuda::DualShiftPack(ConstData<uint8_t>(codes), n, k, static_cast<int>(bits), MutableData<uint8_t>(packed),
                                  current.stream), kOp);
  return packed;
}

Tensor DualShiftUnpackCuda(const Tensor& packed, int64_t n, int64_t k, int64_t bits) {
  constexpr const char* kOp = "dual_shift_unpack";
  CheckTensor(packed, ScalarType::Byte, kOp, "packed");
  STD_TORCH_CHECK(n >= 0 && k >= 0 && IsCodeWidth(bits), kOp, ": needs n and k >= 0 and a known width");
  CheckNumel(packed, NumPanels(n) * PanelCodeBytes(k, static_cast<int>(bits)), kOp, "packed");
  CheckPlaced(packed, packed, 16, kOp, "packed");
  const CurrentStream current(packed);
  Tensor codes = torch::stable::new_empty(packed, {n, k});
  CheckLaunch(cuda::DualShiftUnpack(ConstData<uint8_t>(packed), n, k, static_cast<int>(bits), MutableData<uint8_t>(codes),
                                    current.stream), kOp);
  return codes;
}

}  // namespace prism

STABLE_TORCH_LIBRARY_IMPL(prism, CUDA, m) {
  m.impl("dual_shift_pack", TORCH_BOX(&prism::DualShiftPackCuda));
  m.impl("dual_shift_unpack", TORCH_BOX(&prism::DualShiftUnpackCuda));
}
