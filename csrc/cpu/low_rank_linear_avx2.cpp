#include "low_rank_linear.h"

#include <algorithm>

#include "isa.h"

#if PRISM_X86
#include <immintrin.h>

#include "typed_avx2.h"
#include "unroll.h"

PRISM_TARGET_BEGIN(PRISM_TARGET_AVX2)
namespace prism::cpu::avx2 {
namespace {

PRISM_DEFINE_UNROLL

typedef __m256 Lanes;
constexpr int kLanes = 8;

inline Lanes Zero() { return _mm256_setzero_ps(); }
inline Lanes Add(Lanes a, Lanes b) { return _mm256_add_ps(a, b); }
inline Lanes MulAdd(Lanes a, Lanes b, Lanes c) { return _mm256_fmadd_ps(a, b, c); }
inline float Total(Lanes v) {
  __m128 sum = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  sum = _mm_add_ps(sum, _mm_movehl_ps(sum, sum));
  return _mm_cvtss_f32(_mm_add_ss(sum, _mm_movehdup_ps(sum)));
}

template <DType kDType>
inline Lanes Load(const void* data, int64_t index) {
  if constexpr (kDType == DType::kFloat32) return _mm256_loadu_ps(static_cast<const float*>(data) + index);
  const auto* halves = reinterpret_cast<const __m128i*>(static_cast<const uint16_t*>(data) + index);
  const __m128i words = _mm_loadu_si128(halves);
  if constexpr (kDType == DType::kFloat16) return _mm256_cvtph_ps(words);
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(words), 16));
}

#include "low_rank_linear_rows.inc"

}  // namespace

void LowRankLinear(const DenseRows& w, const float* x, int64_t m, int64_t begin, int64_t end, float* out, int64_t n) {
  Run(w, x, m, begin, end, out, n);
}

}  // namespace prism::cpu::avx2
PRISM_TARGET_END
#endif
