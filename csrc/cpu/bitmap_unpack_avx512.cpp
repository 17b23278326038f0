#include "bitmap_unpack.h"
#include "isa.h"

#if PRISM_X86
#include <immintrin.h>

#include "transpose_avx512.h"

PRISM_TARGET_BEGIN(PRISM_TARGET_AVX512)
namespace prism::cpu::avx512 {
namespace {

constexpr int kLanes = 16;

template <int kBytes>
PRISM_INLINE inline void ExpandPair(uint32_t mask, const uint8_t* values, Ints* words) {
  if constexpr (kBytes == 2) {
    words[0] = _mm512_maskz_expand_epi16(mask, _mm512_loadu_si512(values));
  } else {
    const auto upper = static_cast<__mmask16>(mask), lower = static_cast<__mmask16>(mask >> 16);  // rows from 0, from 8
    const Ints a = _mm512_maskz_expand_epi32(upper, _mm512_loadu_si512(values));
    const Ints b = _mm512_maskz_expand_epi32(lower, _mm512_loadu_si512(values + 4 * _mm_popcnt_u32(upper)));
    const Ints even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    words[0] = _mm512_permutex2var_epi32(a, even, b);
    words[1] = _mm512_permutex2var_epi32(a, _mm512_add_epi32(even, _mm512_set1_epi32(1)), b);
  }
}

#include "bitmap_unpack_panels.inc"

}  // namespace

void BitmapUnpack(const BitmapUnpackArgs& args, int64_t begin, int64_t end) { Run(args, begin, end); }

}  // namespace prism::cpu::avx512
PRISM_TARGET_END
#endif
