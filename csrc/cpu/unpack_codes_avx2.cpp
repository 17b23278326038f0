#include "unpack_codes.h"

#include "../common/codebooks.h"
#include "codes_avx2.h"
#include "isa.h"

#if PRISM_X86
PRISM_TARGET_BEGIN(PRISM_TARGET_AVX2)
namespace prism::cpu::avx2 {

void UnpackCodes(const uint8_t* packed, int64_t num_rows, int64_t count, int bits, uint8_t* codes) {
  const Unpacker unpacker(bits);
  const int64_t packed_bytes = PackedBytes(count, bits);
  for (int64_t row = 0; row < num_rows; ++row, packed += packed_bytes, codes += count) {
    UnpackStream(unpacker, packed, packed_bytes, count, codes);
  }
}

}  // namespace prism::cpu::avx2
PRISM_TARGET_END
#endif
