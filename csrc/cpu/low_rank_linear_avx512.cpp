#include "low_rank_linear.h"

#include <algorithm>

#include "isa.h"

#if PRISM_X86
#include <immintrin.h>

#include "typed_avx512.h"
#include "unroll.h"

PRISM_TARGET_BEGIN(PRISM_TARGET_AVX512)
namespace prism::cpu::avx512 {
namespace {

PRISM_DEFINE_UNROLL

typedef __m512 Lanes;
constexpr int kLanes = 16;

inline Lanes Zero() { return _mm512_setzero_ps(); }
inline Lanes Add(Lanes a, Lanes b) { return _mm512_add_ps(a, b); }
inline Lanes MulAdd(Lanes a, Lanes b, Lanes c) { return _mm512_fmadd_ps(a, b, c); }
inline float Total(Lanes v) { return ReduceAdd(v); }

template <DType kDType>
inline Lanes Load(const void* data, int64_t index) {
  if constexpr (kDType == DType::kFloat32) return _mm512_loadu_ps(static_cast<const float*>(data) + index);
  const auto* halves = reinterpret_cast<const __m256i*>(static_cast<const uint16_t*>(data) + index);
  const __m256i words = _mm256_loadu_si256(halves);
  if constexpr (kDType == DType::kFloat16) return _mm512_cvtph_ps(words);
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(words), 16));
}

#include "low_rank_linear_rows.inc"

}  // namespace

void LowRankLinear(const DenseRows& w, const float* x, int64_t m, int64_t begin, int64_t end, float* out, int64_t n) {
  Run(w, x, m, begin, end, out, n);
}

}  // namespace prism::cpu::avx512
PRISM_TARGET_END
#endif
