#include "../../cpu/pack_codes.h"

#include "quantized.h"

namespace prism {

Tensor PackCodesCpu(const Tensor& codes, int64_t bits) {
  CheckTensor(codes, ScalarType::Byte, "pack_codes", "codes");
  STD_TORCH_CHECK(codes.dim() == 2 && IsCodeWidth(bits), "pack_codes: needs [n, c] and a known width");
  const int64_t n = codes.size(0), count = codes.size(1), packed_bytes = PackedBytes(count, bits);
  Tensor packed = torch::stable::new_empty(codes, {n, packed_bytes});
  const uint8_t* in = ConstData<uint8_t>(codes);
  uint8_t* out = MutableData<uint8_t>(packed);
  const cpu::PackCodesFn kernel = cpu::PickPackCodes();
  torch::stable::parallel_for(0, n, RowGrain(count), [&](int64_t begin, int64_t end) {
    kernel(in + begin * count, end - begin, count, static_cast<int>(bits), out + begin * packed_bytes);
  });
  return packed;
}

}  // namespace prism

STABLE_TORCH_LIBRARY_IMPL(prism, CPU, m) { m.impl("pack_codes", TORCH_BOX(&prism::PackCodesCpu)); }
