// 8 survivors at a time: their activations are gathered. Several tokens: 8 tokens at a time.
#include "csr_linear.h"

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

inline Lanes Broadcast(float value) { return _mm256_set1_ps(value); }
inline Lanes MulAdd(Lanes a, Lanes b, Lanes c) { return _mm256_fmadd_ps(a, b, c); }

// Columns [i, i + count), count <= 8; the lanes beyond are 0.
inline __m256i LoadColumns(const CsrRows& w, int64_t i, int64_t count) {
  __m256i columns;
  if (w.wide_columns) {
    columns = _mm256_maskload_epi32(static_cast<const int*>(w.columns) + i, LowLanes(count));
  } else {
    const uint16_t* words = static_cast<const uint16_t*>(w.columns) + i;
    uint16_t copy[8] = {};
    if (count < kLanes) {
      std::memcpy(copy, words, static_cast<size_t>(count) * 2);
      words = copy;
    }
    columns = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(words)));
  }
  return _mm256_min_epu32(columns, _mm256_set1_epi32(static_cast<int>(w.k - 1)));
}

float DotRow(const CsrRows& w, const float* x, int64_t begin, int64_t end) {
  __m256 sum[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()};
  int64_t i = begin;
  const auto add = [&](int64_t at, int64_t count, int which) PRISM_INLINE {
    const __m256 present = _mm256_castsi256_ps(LowLanes(count));  // an absent lane must not meet an infinite x[0]
    const __m256 gathered = _mm256_mask_i32gather_ps(_mm256_setzero_ps(), x, LoadColumns(w, at, count), present, 4);
    sum[which] = _mm256_fmadd_ps(LoadTyped(w.values, w.dtype, at, count), gathered, sum[which]);
  };
  for (; i + 2 * kLanes <= end; i += 2 * kLanes) {
    add(i, kLanes, 0);
    add(i + kLanes, kLanes, 1);
  }
  for (; i < end; i += kLanes) add(i, std::min<int64_t>(kLanes, end - i), 0);
  alignas(32) float lanes[kLanes];
  _mm256_store_ps(lanes, _mm256_add_ps(sum[0], sum[1]));
  return ((lanes[0] + lanes[4]) + (lanes[1] + lanes[5])) + ((lanes[2] + lanes[6]) + (lanes[3] + lanes[7]));
}

#include "csr_linear_rows.inc"

}  // namespace

void CsrLinear(const CsrRows& w, const CsrLinearArgs& args, int64_t begin, int64_t end) { RunRows(w, args, begin, end); }

}  // namespace prism::cpu::avx2
PRISM_TARGET_END
#endif
