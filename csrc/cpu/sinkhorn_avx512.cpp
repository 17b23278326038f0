#include <cstring>
#include <limits>
#include <vector>

#include "isa.h"
#include "sinkhorn.h"

#if PRISM_X86
#include <immintrin.h>

PRISM_TARGET_BEGIN(PRISM_TARGET_AVX512)
namespace prism::cpu::avx512 {

namespace {

constexpr int kLanes = 16;
constexpr int kRows = 8;
using Lanes = __m512;

inline Lanes LoadKept(const float* from, const uint8_t* bitmap, int64_t j) {
  __mmask16 kept;
  std::memcpy(&kept, bitmap + (j >> 3), sizeof kept);
  return _mm512_maskz_loadu_ps(kept, from);
}

inline double Total(Lanes lanes) {
  // The form with a mask, because gcc 12 warns about the undefined operand inside its plain one.
  const __m256 quarters =
      _mm256_add_ps(_mm512_maskz_extractf32x8_ps(0xff, lanes, 0), _mm512_maskz_extractf32x8_ps(0xff, lanes, 1));
  __m128 half = _mm_add_ps(_mm256_castps256_ps128(quarters), _mm256_extractf128_ps(quarters, 1));
  half = _mm_add_ps(half, _mm_movehl_ps(half, half));
  return static_cast<double>(_mm_cvtss_f32(_mm_add_ss(half, _mm_movehdup_ps(half))));
}

}  // namespace
#include "sinkhorn_kernels.inc"

}  // namespace prism::cpu::avx512
PRISM_TARGET_END
#endif
