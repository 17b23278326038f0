// 8 x 8 words between columns in registers and rows in memory; included by the AVX2 kernels only.
#pragma once
#include "isa.h"

#if PRISM_X86
#include <immintrin.h>

#include <cstring>

#include "unroll.h"

PRISM_TARGET_BEGIN(PRISM_TARGET_AVX2)
namespace prism::cpu::avx2 {
namespace {

PRISM_DEFINE_UNROLL

using Ints = __m256i;

// 8 x 8 words.
PRISM_INLINE inline void Transpose(Ints* v) {
  Ints fours[2][4];  // lane l of fours[g][j]: column 4 * l + j of rows 4 * g and following
  Unroll<2>([&](auto g) PRISM_INLINE {
    const Ints a = _mm256_unpacklo_epi32(v[4 * g], v[4 * g + 1]), b = _mm256_unpackhi_epi32(v[4 * g], v[4 * g + 1]);
    const Ints c = _mm256_unpacklo_epi32(v[4 * g + 2], v[4 * g + 3]);
    const Ints d = _mm256_unpackhi_epi32(v[4 * g + 2], v[4 * g + 3]);
    fours[g][0] = _mm256_unpacklo_epi64(a, c);
    fours[g][1] = _mm256_unpackhi_epi64(a, c);
    fours[g][2] = _mm256_unpacklo_epi64(b, d);
    fours[g][3] = _mm256_unpackhi_epi64(b, d);
  });
  Unroll<4>([&](auto j) PRISM_INLINE {
    v[j] = _mm256_permute2x128_si256(fours[0][j], fours[1][j], 0x20);
    v[j + 4] = _mm256_permute2x128_si256(fours[0][j], fours[1][j], 0x31);
  });
}

PRISM_INLINE inline void StoreWords(void* out, Ints words, int64_t bytes) {
  if (bytes >= 32) return _mm256_storeu_si256(static_cast<__m256i*>(out), words);
  alignas(32) uint8_t copy[32];
  _mm256_store_si256(reinterpret_cast<__m256i*>(copy), words);
  std::memcpy(out, copy, static_cast<size_t>(bytes));
}

}  // namespace
}  // namespace prism::cpu::avx2
PRISM_TARGET_END
#endif
