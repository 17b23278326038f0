#include "../../cpu/bitmap_pack.h"

#include <vector>

#include "../../cpu/bitmap.h"
#include "../common.h"

namespace prism {

std::tuple<Tensor, Tensor, Tensor> BitmapPackCpu(const Tensor& weight, const std::optional<Tensor>& mask) {
  constexpr const char* kOp = "bitmap_pack";
  const int64_t element_bytes = DTypeBytes(FloatDType(weight, kOp, "weight"));
  STD_TORCH_CHECK(weight.dim() == 2, kOp, ": weight must be [n, k]");
  const int64_t n = weight.size(0), k = weight.size(1), width = 8 * cpu::NumBlocks(k);
  if (mask.has_value()) {
    CheckTensor(*mask, ScalarType::Bool, kOp, "mask");
    CheckNumel(*mask, n * k, kOp, "mask");
  }
  STD_TORCH_CHECK(n * k < (int64_t{1} << 31), kOp, ": weight must have fewer than 2**31 elements");
  Tensor bitmap = torch::stable::new_empty(weight, {n, width}, ScalarType::Byte);
  Tensor row_offsets = torch::stable::new_empty(weight, {n + 1}, ScalarType::Int);
  const char* elements = static_cast<const char*>(weight.const_data_ptr());
  const bool* kept = mask.has_value() ? ConstData<bool>(*mask) : nullptr;
  uint8_t* words = MutableData<uint8_t>(bitmap);
  int32_t* offsets = MutableData<int32_t>(row_offsets);
  const cpu::BitmapPackKernel& kernel = *cpu::PickBitmapPack();
  offsets[0] = 0;
  torch::stable::parallel_for(0, n, 16, [&](int64_t begin, int64_t end) {
    uint8_t* first = words + begin * width;
    if (kept != nullptr) {
      kernel.from_mask(kept + begin * k, end - begin, k, first);
    } else {
      kernel.from_weight(elements + begin * k * element_bytes, element_bytes, end - begin, k, first);
    }
    for (int64_t row = begin; row < end; ++row) {
      offsets[row + 1] = static_cast<int32_t>(cpu::CountBits(words + row * width, width));
    }
  });
  for (int64_t row = 0; row < n; ++row) offsets[row + 1] += offsets[row];
  Tensor values = torch::stable::new_empty(weight, {offsets[n]});
  char* packed = static_cast<char*>(values.mutable_data_ptr());
  torch::stable::parallel_for(0, n, 16, [&](int64_t begin, int64_t end) {
    kernel.compress(elements + begin * k * element_bytes, element_bytes, words + begin * width, end - begin, k,
                    packed + offsets[begin] * element_bytes);
  });
  return {bitmap, values, row_offsets};
}

}  // namespace prism

STABLE_TORCH_LIBRARY_IMPL(prism, CPU, m) { m.impl("bitmap_pack", TORCH_BOX(&prism::BitmapPackCpu)); }
