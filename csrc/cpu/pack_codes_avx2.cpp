// 8 codes at a time: pext gathers the low bits of 8 bytes into `bits` bytes.
#include "isa.h"
#include "pack_codes.h"

#if PRISM_X86
#include <immintrin.h>

#include <cstring>

#include "../common/codebooks.h"

PRISM_TARGET_BEGIN(PRISM_TARGET_AVX2)
namespace prism::cpu::avx2 {

void PackCodes(const uint8_t* codes, int64_t num_rows, int64_t count, int bits, uint8_t* packed) {
  const uint64_t mask = 0x0101010101010101ull * ((1u << bits) - 1);
  for (int64_t row = 0; row < num_rows; ++row, codes += count) {
    for (int64_t i = 0; i < count; i += 8) {
      const int64_t length = count - i < 8 ? count - i : 8, bytes = PackedBytes(length, bits);
      uint64_t word = 0;
      std::memcpy(&word, codes + i, static_cast<size_t>(length));
      word = _pext_u64(word, mask);
      std::memcpy(packed, &word, static_cast<size_t>(bytes));
      packed += bytes;
    }
  }
}

}  // namespace prism::cpu::avx2
PRISM_TARGET_END
#endif
