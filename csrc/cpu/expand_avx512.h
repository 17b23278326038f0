// Expansion of up to 32 kept values to their places.
#pragma once
#include "isa.h"

#if PRISM_X86
#include <immintrin.h>

PRISM_TARGET_BEGIN(PRISM_TARGET_AVX512)
namespace prism::cpu::avx512 {

// The fresh zero, kept in front of the expansion by the empty asm, breaks the dependency of vpexpand on the old value
// of its destination.
static inline __m512i ExpandWords(__mmask32 mask, __m512i values) {
  __m512i zero = _mm512_setzero_si512();
  asm("" : "+v"(zero));
  return _mm512_mask_expand_epi16(zero, mask, values);
}

static inline __m512i ExpandDwords(__mmask16 mask, __m512i values) {
  __m512i zero = _mm512_setzero_si512();
  asm("" : "+v"(zero));
  return _mm512_mask_expand_epi32(zero, mask, values);
}

}  // namespace prism::cpu::avx512
PRISM_TARGET_END
#endif
