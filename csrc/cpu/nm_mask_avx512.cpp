// 16 scores at a time: each score counts the members of its group that beat it, and stays if fewer than n_keep do.
#include "isa.h"
#include "nm_mask.h"

#if PRISM_X86
#include <immintrin.h>

#include <limits>

PRISM_TARGET_BEGIN(PRISM_TARGET_AVX512)
namespace prism::cpu::avx512 {

void NmMask(const float* scores, int64_t num_rows, int64_t k, int64_t n_keep, int64_t m, bool* mask) {
  constexpr int kLanes = 16;
  if (m > kLanes || (m & (m - 1)) != 0) return generic::NmMask(scores, num_rows, k, n_keep, m, mask);
  const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  const __m512i within = _mm512_set1_epi32(static_cast<int>(m - 1));
  const __m512i position = _mm512_and_si512(lane, within);
  const __m512i base = _mm512_andnot_si512(within, lane);
  const __m512 lowest = _mm512_set1_ps(-std::numeric_limits<float>::infinity());
  const int64_t whole = k - k % kLanes;
  for (int64_t row = 0; row < num_rows; ++row, scores += k, mask += k) {
    for (int64_t j = 0; j < whole; j += kLanes) {
      __m512 own = _mm512_loadu_ps(scores + j);
      own = _mm512_mask_mov_ps(own, _mm512_cmp_ps_mask(own, own, _CMP_UNORD_Q), lowest);
      __m512i beaten_by = _mm512_setzero_si512();
      for (int shift = 1; shift < m; ++shift) {
        const __m512i moved = _mm512_add_epi32(position, _mm512_set1_epi32(shift));
        const __m512 other = _mm512_permutexvar_ps(_mm512_or_si512(base, _mm512_and_si512(moved, within)), own);
        const __mmask16 later = _mm512_cmple_epi32_mask(moved, within);  // the other one has the higher index
        const __mmask16 beats = _mm512_cmp_ps_mask(other, own, _CMP_GT_OQ) |
                                (later & _mm512_cmp_ps_mask(other, own, _CMP_EQ_OQ));
        beaten_by = _mm512_mask_add_epi32(beaten_by, beats, beaten_by, _mm512_set1_epi32(1));
      }
      const __mmask16 kept = _mm512_cmplt_epi32_mask(beaten_by, _mm512_set1_epi32(static_cast<int>(n_keep)));
      _mm_storeu_si128(reinterpret_cast<__m128i*>(mask + j), _mm_maskz_set1_epi8(kept, 1));
    }
    if (whole < k) generic::NmMask(scores + whole, 1, k - whole, n_keep, m, mask + whole);
  }
}

}  // namespace prism::cpu::avx512
PRISM_TARGET_END
#endif
