#include "dual_shift_quantize.h"

#include <limits>

#include "../common/grid.h"
#include "isa.h"

#if PRISM_X86
#include <immintrin.h>

#include "typed_avx512.h"

PRISM_TARGET_BEGIN(PRISM_TARGET_AVX512)
namespace prism::cpu::avx512 {
namespace {

constexpr int64_t kLanes = 16;
using Floats = __m512;
Floats LoadFloats(const float* p) { return _mm512_loadu_ps(p); }
void StoreFloats(float* p, Floats v) { _mm512_storeu_ps(p, v); }
Floats Broadcast(float value) { return _mm512_set1_ps(value); }
Floats Divide(Floats a, Floats b) { return _mm512_div_ps(a, b); }
Floats Add(Floats a, Floats b) { return _mm512_add_ps(a, b); }
Floats Least(Floats a, Floats b) { return _mm512_min_ps(a, b); }
Floats Greatest(Floats a, Floats b) { return _mm512_max_ps(a, b); }
Floats Magnitude(Floats v) { return _mm512_andnot_ps(_mm512_set1_ps(-0.0f), v); }
Floats FirstLanes(Floats v, int64_t count) { return _mm512_maskz_mov_ps(LowMask16(count), v); }
Floats RoundSteps(Floats v) { return _mm512_roundscale_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }

Floats KeptLanes(Floats v, const bool* mask, int64_t count) {
  const __m128i bytes = _mm_maskz_loadu_epi8(LowMask16(count), mask);
  return _mm512_maskz_mov_ps(_mm_test_epi8_mask(bytes, bytes), v);
}

template <class Choose>
float OneLane(Floats v, Choose choose) {
  alignas(64) float lanes[kLanes];
  _mm512_store_ps(lanes, v);
  for (int64_t i = 1; i < kLanes; ++i) lanes[0] = choose(lanes[0], lanes[i]);
  return lanes[0];
}
float LeastLane(Floats v) {
  return OneLane(v, [](float a, float b) { return b < a ? b : a; });
}
float GreatestLane(Floats v) {
  return OneLane(v, [](float a, float b) { return b > a ? b : a; });
}

// How many midpoints lie below each ratio, by bisection.
Floats LevelCodes(Floats ratio, const float* midpoints) {
  const __m512 table = _mm512_loadu_ps(midpoints);
  __m512i code = _mm512_setzero_si512();
  for (int half = 8; half > 0; half /= 2) {
    const __m512 middle = _mm512_permutexvar_ps(_mm512_add_epi32(code, _mm512_set1_epi32(half - 1)), table);
    const __mmask16 above = _mm512_cmp_ps_mask(ratio, middle, _CMP_GT_OQ);
    code = _mm512_mask_add_epi32(code, above, code, _mm512_set1_epi32(half));
  }
  return _mm512_cvtepi32_ps(code);
}

void StoreCodes(Floats codes, uint8_t* p, int64_t count) {
  _mm512_mask_cvtepi32_storeu_epi8(p, LowMask16(count), _mm512_cvttps_epi32(codes));
}

#include "dual_shift_quantize_rows.inc"

}  // namespace

void DualShiftQuantize(const DualShiftQuantizeArgs& args, int64_t begin, int64_t end, float* scratch) {
  Run(args, begin, end, scratch);
}

}  // namespace prism::cpu::avx512
PRISM_TARGET_END
#endif
