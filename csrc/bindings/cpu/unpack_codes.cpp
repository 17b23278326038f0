#include "../../cpu/unpack_codes.h"

#include "quantized.h"

namespace prism {

Tensor UnpackCodesCpu(const Tensor& packed, int64_t bits, int64_t count) {
  CheckTensor(packed, ScalarType::Byte, "unpack_codes", "packed");
  STD_TORCH_CHECK(packed.dim() == 2 && IsCodeWidth(bits) && count >= 0,
                  "unpack_codes: needs [n, bytes], a known width and count >= 0");
  const int64_t n = packed.size(0), packed_bytes = PackedBytes(count, bits);
  CheckNumel(packed, n * packed_bytes, "unpack_codes", "packed");
  Tensor codes = torch::stable::new_empty(packed, {n, count});
  const uint8_t* in = ConstData<uint8_t>(packed);
  uint8_t* out = MutableData<uint8_t>(codes);
  const cpu::UnpackCodesFn kernel = cpu::PickUnpackCodes();
  torch::stable::parallel_for(0, n, RowGrain(count), [&](int64_t begin, int64_t end) {
    kernel(in + begin * packed_bytes, end - begin, count, static_cast<int>(bits), out + begin * count);
  });
  return codes;
}

}  // namespace prism

STABLE_TORCH_LIBRARY_IMPL(prism, CPU, m) { m.impl("unpack_codes", TORCH_BOX(&prism::UnpackCodesCpu)); }
