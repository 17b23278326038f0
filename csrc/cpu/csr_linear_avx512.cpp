// 16 survivors at a time: their activations are gathered. Several tokens: 16 tokens at a time.
#include "csr_linear.h"

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
constexpr int64_t kPrefetchValues = 2048;  // survivors ahead

inline Lanes Broadcast(float value) { return _mm512_set1_ps(value); }
inline Lanes MulAdd(Lanes a, Lanes b, Lanes c) { return _mm512_fmadd_ps(a, b, c); }

// Columns [i, i + count), count <= 16; the lanes beyond are 0.
inline __m512i LoadColumns(const CsrRows& w, int64_t i, int64_t count) {
  const __mmask16 mask = LowMask16(count);
  const __m512i columns =
      w.wide_columns
          ? _mm512_maskz_loadu_epi32(mask, static_cast<const int*>(w.columns) + i)
          : _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, static_cast<const uint16_t*>(w.columns) + i));
  return _mm512_min_epu32(columns, _mm512_set1_epi32(static_cast<int>(w.k - 1)));
}

float DotRow(const CsrRows& w, const float* x, int64_t begin, int64_t end) {
  __m512 sum[2] = {_mm512_setzero_ps(), _mm512_setzero_ps()};
  const int64_t column_bytes = w.wide_columns ? 4 : 2, value_bytes = DTypeBytes(w.dtype);
  int64_t i = begin;
  const auto add = [&](int64_t at, int64_t count, int which) PRISM_INLINE {
    const __m512 zero = _mm512_setzero_ps();
    const __m512 gathered = _mm512_mask_i32gather_ps(zero, LowMask16(count), LoadColumns(w, at, count), x, 4);
    sum[which] = _mm512_fmadd_ps(LoadTyped(w.values, w.dtype, at, count), gathered, sum[which]);
  };
  for (; i + 2 * kLanes <= end; i += 2 * kLanes) {
    _mm_prefetch(static_cast<const char*>(w.values) + (i + kPrefetchValues) * value_bytes, _MM_HINT_T0);
    _mm_prefetch(static_cast<const char*>(w.columns) + (i + kPrefetchValues) * column_bytes, _MM_HINT_T0);
    add(i, kLanes, 0);
    add(i + kLanes, kLanes, 1);
  }
  for (; i < end; i += kLanes) add(i, std::min<int64_t>(kLanes, end - i), 0);
  return ReduceAdd(_mm512_add_ps(sum[0], sum[1]));
}

#include "csr_linear_rows.inc"

}  // namespace

void CsrLinear(const CsrRows& w, const CsrLinearArgs& args, int64_t begin, int64_t end) { RunRows(w, args, begin, end); }

}  // namespace prism::cpu::avx512
PRISM_TARGET_END
#endif
