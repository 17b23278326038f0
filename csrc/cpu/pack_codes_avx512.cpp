// 64 codes at a time: multiply-adds join neighbours until each 64-bit lane holds its 8 codes in its low bits, then the
// used bytes of all lanes move together.
#include "isa.h"
#include "pack_codes.h"

#if PRISM_X86
#include <immintrin.h>

#include <cstring>

#include "../common/codebooks.h"
#include "codes_avx512.h"

PRISM_TARGET_BEGIN(PRISM_TARGET_AVX512)
namespace prism::cpu::avx512 {
namespace {

class Packer {
 public:
  explicit Packer(int bits)  // below 8
      : mask_(_mm512_set1_epi8(static_cast<char>((1 << bits) - 1))),
        join_bytes_(_mm512_set1_epi16(static_cast<short>(1 | (1 << (8 + bits))))),
        join_words_(_mm512_set1_epi32(1 | (1 << (16 + 2 * bits)))),
        low_half_(_mm512_set1_epi64(0xffffffff)),
        join_halves_(_mm_cvtsi32_si128(32 - 4 * bits)) {
    alignas(64) uint8_t gather[64] = {};
    for (int i = 0; i < 8 * bits; ++i) gather[i] = static_cast<uint8_t>((i / bits) * 8 + i % bits);
    gather_ = _mm512_load_si512(gather);
  }

  __m512i Pack(__m512i codes) const {
    codes = _mm512_and_si512(codes, mask_);
    const __m512i pairs = _mm512_maddubs_epi16(codes, join_bytes_);
    const __m512i quads = _mm512_madd_epi16(pairs, join_words_);
    const __m512i upper = _mm512_srl_epi64(_mm512_andnot_si512(low_half_, quads), join_halves_);
    return _mm512_permutexvar_epi8(gather_, _mm512_or_si512(_mm512_and_si512(quads, low_half_), upper));
  }

 private:
  __m512i mask_, join_bytes_, join_words_, low_half_, gather_;
  __m128i join_halves_;
};

}  // namespace

void PackCodes(const uint8_t* codes, int64_t num_rows, int64_t count, int bits, uint8_t* packed) {
  if (bits == 8) {
    if (count > 0) std::memcpy(packed, codes, static_cast<size_t>(num_rows * count));
    return;
  }
  const Packer packer(bits);
  for (int64_t row = 0; row < num_rows; ++row, codes += count) {
    for (int64_t i = 0; i < count; i += 64) {
      const int64_t length = count - i < 64 ? count - i : 64, bytes = PackedBytes(length, bits);
      const __m512i block = packer.Pack(_mm512_maskz_loadu_epi8(LowMask64(length), codes + i));
      _mm512_mask_storeu_epi8(packed, LowMask64(bytes), block);
      packed += bytes;
    }
  }
}

}  // namespace prism::cpu::avx512
PRISM_TARGET_END
#endif
