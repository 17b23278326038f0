// 8 scores at a time: each score counts the members of its group that beat it, and stays if fewer than n_keep do.
#include "isa.h"
#include "nm_mask.h"

#if PRISM_X86
#include <immintrin.h>

#include <limits>

PRISM_TARGET_BEGIN(PRISM_TARGET_AVX2)
namespace prism::cpu::avx2 {

void NmMask(const float* scores, int64_t num_rows, int64_t k, int64_t n_keep, int64_t m, bool* mask) {
  constexpr int kLanes = 8;
  if (m > kLanes || (m & (m - 1)) != 0) return generic::NmMask(scores, num_rows, k, n_keep, m, mask);
  const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  const __m256i within = _mm256_set1_epi32(static_cast<int>(m - 1));
  const __m256i position = _mm256_and_si256(lane, within);
  const __m256i base = _mm256_andnot_si256(within, lane);
  const __m256 lowest = _mm256_set1_ps(-std::numeric_limits<float>::infinity());
  const int64_t whole = k - k % kLanes;
  for (int64_t row = 0; row < num_rows; ++row, scores += k, mask += k) {
    for (int64_t j = 0; j < whole; j += kLanes) {
      __m256 own = _mm256_loadu_ps(scores + j);
      own = _mm256_blendv_ps(own, lowest, _mm256_cmp_ps(own, own, _CMP_UNORD_Q));
      __m256i beaten_by = _mm256_setzero_si256();
      for (int shift = 1; shift < m; ++shift) {
        const __m256i moved = _mm256_add_epi32(position, _mm256_set1_epi32(shift));
        const __m256 other = _mm256_permutevar8x32_ps(own, _mm256_or_si256(base, _mm256_and_si256(moved, within)));
        const __m256i earlier = _mm256_cmpgt_epi32(moved, within);  // the other one has the lower index
        const __m256i ties = _mm256_castps_si256(_mm256_cmp_ps(other, own, _CMP_EQ_OQ));
        const __m256i greater = _mm256_castps_si256(_mm256_cmp_ps(other, own, _CMP_GT_OQ));
        const __m256i beats = _mm256_or_si256(greater, _mm256_andnot_si256(earlier, ties));
        beaten_by = _mm256_sub_epi32(beaten_by, beats);  // a true lane is -1
      }
      const __m256i kept = _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(n_keep)), beaten_by);
      const int bits = _mm256_movemask_ps(_mm256_castsi256_ps(kept));
      for (int i = 0; i < kLanes; ++i) mask[j + i] = (bits >> i) & 1;
    }
    if (whole < k) generic::NmMask(scores + whole, 1, k - whole, n_keep, m, mask + whole);
  }
}

}  // namespace prism::cpu::avx2
PRISM_TARGET_END
#endif
