// 16 x 16 words between columns in registers and rows in memory; included by the AVX-512 kernels only.
#pragma once
#include "isa.h"

#if PRISM_X86
#include <immintrin.h>

#include "unroll.h"

PRISM_TARGET_BEGIN(PRISM_TARGET_AVX512)
namespace prism::cpu::avx512 {
namespace {

PRISM_DEFINE_UNROLL

using Ints = __m512i;

// 16 x 16 words.
PRISM_INLINE inline void Transpose(Ints* v) {
  Ints fours[4][4];  // lane l of fours[g][j]: column 4 * l + j of rows 4 * g and following
  Unroll<4>([&](auto g) PRISM_INLINE {
    const Ints a = _mm512_unpacklo_epi32(v[4 * g], v[4 * g + 1]), b = _mm512_unpackhi_epi32(v[4 * g], v[4 * g + 1]);
    const Ints c = _mm512_unpacklo_epi32(v[4 * g + 2], v[4 * g + 3]);
    const Ints d = _mm512_unpackhi_epi32(v[4 * g + 2], v[4 * g + 3]);
    fours[g][0] = _mm512_unpacklo_epi64(a, c);
    fours[g][1] = _mm512_unpackhi_epi64(a, c);
    fours[g][2] = _mm512_unpacklo_epi64(b, d);
    fours[g][3] = _mm512_unpackhi_epi64(b, d);
  });
  Unroll<4>([&](auto j) PRISM_INLINE {
    const Ints a = _mm512_shuffle_i32x4(fours[0][j], fours[1][j], 0x88);
    const Ints b = _mm512_shuffle_i32x4(fours[0][j], fours[1][j], 0xdd);
    const Ints c = _mm512_shuffle_i32x4(fours[2][j], fours[3][j], 0x88);
    const Ints d = _mm512_shuffle_i32x4(fours[2][j], fours[3][j], 0xdd);
    v[j] = _mm512_shuffle_i32x4(a, c, 0x88);
    v[j + 4] = _mm512_shuffle_i32x4(b, d, 0x88);
    v[j + 8] = _mm512_shuffle_i32x4(a, c, 0xdd);
    v[j + 12] = _mm512_shuffle_i32x4(b, d, 0xdd);
  });
}

PRISM_INLINE inline void StoreWords(void* out, Ints words, int64_t bytes) {
  if (bytes >= 64) return _mm512_storeu_si512(out, words);
  _mm512_mask_storeu_epi8(out, (1ull << bytes) - 1, words);
}

}  // namespace
}  // namespace prism::cpu::avx512
PRISM_TARGET_END
#endif
