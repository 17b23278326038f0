#include "unpack_codes.h"

#include "../common/codebooks.h"
#include "isa.h"

namespace prism::cpu {
namespace generic {

void UnpackCodes(const uint8_t* packed, int64_t num_rows, int64_t count, int bits, uint8_t* codes) {
  const int64_t packed_bytes = PackedBytes(count, bits);
  for (int64_t row = 0; row < num_rows; ++row, packed += packed_bytes, codes += count) {
    for (int64_t i = 0; i < count; ++i) codes[i] = static_cast<uint8_t>(CodeAt(packed, i, bits));
  }
}

}  // namespace generic

UnpackCodesFn PickUnpackCodes() {
#if PRISM_X86
  return Pick<UnpackCodesFn>("unpack_codes", {generic::UnpackCodes, avx2::UnpackCodes, avx512::UnpackCodes, nullptr});
#else
  return Pick<UnpackCodesFn>("unpack_codes", {generic::UnpackCodes});
#endif
}

}  // namespace prism::cpu
