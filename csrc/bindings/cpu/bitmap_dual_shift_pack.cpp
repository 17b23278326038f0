#include "../../cpu/bitmap_dual_shift_pack.h"

#include "../../cpu/bitmap.h"
#include "../../cpu/bitmap_pack.h"
#include "../common.h"

namespace prism {

std::tuple<Tensor, Tensor, Tensor> BitmapDualShiftPackCpu(const Tensor& codes, const Tensor& mask, int64_t bits) {
  constexpr const char* kOp = "bitmap_dual_shift_pack";
  CheckTensor(codes, ScalarType::Byte, kOp, "codes");
  CheckTensor(mask, ScalarType::Bool, kOp, "mask");
  STD_TORCH_CHECK(codes.dim() == 2 && bits >= 1 && bits <= 8, kOp, ": needs [n, k] codes of 1 to 8 bits");
  const int64_t n = codes.size(0), k = codes.size(1), width = 8 * cpu::NumBlocks(k);
  CheckNumel(mask, n * k, kOp, "mask");
  STD_TORCH_CHECK(n * width * bits < (int64_t{1} << 31), kOp, ": codes must take fewer than 2**31 bytes");
  Tensor bitmap = torch::stable::new_empty(codes, {n, width});
  Tensor row_offsets = torch::stable::new_empty(codes, {n + 1}, ScalarType::Int);
  uint8_t* words = MutableData<uint8_t>(bitmap);
  int32_t* offsets = MutableData<int32_t>(row_offsets);
  const auto from_mask = cpu::PickBitmapPack()->from_mask;
  const cpu::BitmapDualShiftPackFn kernel = cpu::PickBitmapDualShiftPack();
  offsets[0] = 0;
  torch::stable::parallel_for(0, n, 16, [&](int64_t begin, int64_t end) {
    from_mask(ConstData<bool>(mask) + begin * k, end - begin, k, words + begin * width);
    for (int64_t row = begin; row < end; ++row) {
      offsets[row + 1] = static_cast<int32_t>(cpu::RowCodeBytes(words + row * width, k, static_cast<int>(bits)));
    }
  });
  for (int64_t row = 0; row < n; ++row) offsets[row + 1] += offsets[row];
  Tensor packed = torch::stable::new_empty(codes, {offsets[n]});
  uint8_t* stream = MutableData<uint8_t>(packed);
  torch::stable::parallel_for(0, n, 16, [&](int64_t begin, int64_t end) {
    kernel(ConstData<uint8_t>(codes) + begin * k, words + begin * width, end - begin, k, static_cast<int>(bits),
           stream + offsets[begin]);
  });
  return {bitmap, packed, row_offsets};
}

}  // namespace prism

STABLE_TORCH_LIBRARY_IMPL(prism, CPU, m) { m.impl("bitmap_dual_shift_pack", TORCH_BOX(&prism::BitmapDualShiftPackCpu)); }
