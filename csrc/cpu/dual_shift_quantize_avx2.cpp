#include "dual_shift_quantize.h"

#include <limits>

#include "../common/grid.h"
#include "isa.h"

#if PRISM_X86
#include <immintrin.h>

#include "typed_avx2.h"

PRISM_TARGET_BEGIN(PRISM_TARGET_AVX2)
namespace prism::cpu::avx2 {
namespace {

constexpr int64_t kLanes = 8;
using Floats = __m256;
Floats LoadFloats(const float* p) { return _mm256_loadu_ps(p); }
void StoreFloats(float* p, Floats v) { _mm256_storeu_ps(p, v); }
Floats Broadcast(float value) { return _mm256_set1_ps(value); }
Floats Divide(Floats a, Floats b) { return _mm256_div_ps(a, b); }
Floats Add(Floats a, Floats b) { return _mm256_add_ps(a, b); }
Floats Least(Floats a, Floats b) { return _mm256_min_ps(a, b); }
Floats Greatest(Floats a, Floats b) { return _mm256_max_ps(a, b); }
Floats Magnitude(Floats v) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), v); }
Floats FirstLanes(Floats v, int64_t count) { return _mm256_and_ps(_mm256_castsi256_ps(LowLanes(count)), v); }
Floats RoundSteps(Floats v) { return _mm256_round_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }

Floats KeptLanes(Floats v, const bool* mask, int64_t count) {
  uint64_t bytes = 0;
  std::memcpy(&bytes, mask, static_cast<size_t>(count < kLanes ? count : kLanes));
  const __m256i kept = _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(static_cast<long long>(bytes)));
  return _mm256_and_ps(_mm256_castsi256_ps(_mm256_cmpgt_epi32(kept, _mm256_setzero_si256())), v);
}

template <class Choose>
float OneLane(Floats v, Choose choose) {
  alignas(32) float lanes[kLanes];
  _mm256_store_ps(lanes, v);
  for (int64_t i = 1; i < kLanes; ++i) lanes[0] = choose(lanes[0], lanes[i]);
  return lanes[0];
}
float LeastLane(Floats v) {
  return OneLane(v, [](float a, float b) { return b < a ? b : a; });
}
float GreatestLane(Floats v) {
  return OneLane(v, [](float a, float b) { return b > a ? b : a; });
}

// How many midpoints lie below each ratio: the middle one chooses a half of the table, bisection does the rest.
Floats LevelCodes(Floats ratio, const float* midpoints) {
  const __m256 low = _mm256_loadu_ps(midpoints), high = _mm256_loadu_ps(midpoints + 8);
  const __m256i upper = _mm256_castps_si256(_mm256_cmp_ps(ratio, _mm256_set1_ps(midpoints[7]), _CMP_GT_OQ));
  __m256i code = _mm256_setzero_si256();
  for (int half = 4; half > 0; half /= 2) {
    const __m256i index = _mm256_add_epi32(code, _mm256_set1_epi32(half - 1));
    const __m256 middle = _mm256_blendv_ps(_mm256_permutevar8x32_ps(low, index), _mm256_permutevar8x32_ps(high, index),
                                           _mm256_castsi256_ps(upper));
    const __m256i above = _mm256_castps_si256(_mm256_cmp_ps(ratio, middle, _CMP_GT_OQ));
    code = _mm256_add_epi32(code, _mm256_and_si256(above, _mm256_set1_epi32(half)));
  }
  return _mm256_cvtepi32_ps(_mm256_add_epi32(code, _mm256_and_si256(upper, _mm256_set1_epi32(8))));
}

void StoreCodes(Floats codes, uint8_t* p, int64_t count) {
  const __m256i whole = _mm256_cvttps_epi32(codes);
  const __m128i words = _mm_packus_epi32(_mm256_castsi256_si128(whole), _mm256_extracti128_si256(whole, 1));
  const uint64_t bytes = static_cast<uint64_t>(_mm_cvtsi128_si64(_mm_packus_epi16(words, words)));
  std::memcpy(p, &bytes, static_cast<size_t>(count < kLanes ? count : kLanes));
}

#include "dual_shift_quantize_rows.inc"

}  // namespace

void DualShiftQuantize(const DualShiftQuantizeArgs& args, int64_t begin, int64_t end, float* scratch) {
  Run(args, begin, end, scratch);
}

}  // namespace prism::cpu::avx2
PRISM_TARGET_END
#endif
