// 8 columns at a time: the survivors are shuffled to their columns, widened to float32 and multiplied with up to two
// tokens.
#include "bitmap_linear.h"
#include "isa.h"

#if PRISM_X86
#include <immintrin.h>

#include "bitmap_values_avx2.h"
#include "unroll.h"

PRISM_TARGET_BEGIN(PRISM_TARGET_AVX2)
namespace prism::cpu::avx2 {
namespace {

PRISM_DEFINE_UNROLL

constexpr int64_t kPrefetchBytes = 8192;

float HorizontalSum(__m256 v) {
  const __m128 half = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  const __m128 pair = _mm_add_ps(half, _mm_movehl_ps(half, half));
  return _mm_cvtss_f32(_mm_add_ss(pair, _mm_movehdup_ps(pair)));
}

template <DType kDType>
inline PRISM_INLINE __m256 Columns(uint8_t mask, const uint8_t* values) {
  if constexpr (kDType == DType::kFloat32) return ExpandDwords(mask, values);
  const __m128i words = ExpandWords(mask, values);
  if constexpr (kDType == DType::kFloat16) return _mm256_cvtph_ps(words);
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(words), 16));
}

// One row times kTokens tokens; x [kTokens, NumBlocks(k) * 64].
template <DType kDType, int kTokens>
void MultiplyRow(const BitmapValues& w, const uint8_t* values, const float* x, int64_t row, float* sums, int64_t n) {
  constexpr int64_t kBytes = kDType == DType::kFloat32 ? 4 : 2;
  const int64_t blocks = NumBlocks(w.k), x_stride = blocks * kBlock;
  const uint8_t* bitmap = w.RowBitmap(row);
  __m256 sum[kTokens][4];
  Unroll<kTokens>([&](auto t) PRISM_INLINE {
    Unroll<4>([&](auto i) PRISM_INLINE { sum[t][i] = _mm256_setzero_ps(); });
  });
  for (int64_t quarters = 2 * blocks; quarters > 0; --quarters, bitmap += 4, x += 32) {
    _mm_prefetch(values + kPrefetchBytes, _MM_HINT_T0);
    Unroll<4>([&](auto i) PRISM_INLINE {
      const uint8_t mask = bitmap[i];
      const __m256 weight = Columns<kDType>(mask, values);
      values += kBytes * _mm_popcnt_u32(mask);
      Unroll<kTokens>([&](auto t) PRISM_INLINE {
        sum[t][i] = _mm256_fmadd_ps(weight, _mm256_loadu_ps(x + t * x_stride + 8 * i), sum[t][i]);
      });
    });
  }
  Unroll<kTokens>([&](auto t) PRISM_INLINE {
    const __m256 total = _mm256_add_ps(_mm256_add_ps(sum[t][0], sum[t][1]), _mm256_add_ps(sum[t][2], sum[t][3]));
    sums[t * n + row] = HorizontalSum(total);
  });
}

template <DType kDType>
void Multiply(const BitmapValues& w, const float* x, int64_t m, int64_t row_begin, int64_t row_end, float* sums,
              int64_t n) {
  const int64_t columns = NumBlocks(w.k) * kBlock;
  RowStreams streams = w.Streams(1);
  for (int64_t row = row_begin; row < row_end; ++row) {
    const uint8_t* values = streams.Get(0, w.RowBegin(row));
    int64_t t = 0;
    for (; t + 2 <= m; t += 2) MultiplyRow<kDType, 2>(w, values, x + t * columns, row, sums + t * n, n);
    if (t < m) MultiplyRow<kDType, 1>(w, values, x + t * columns, row, sums + t * n, n);
  }
}

}  // namespace

void BitmapLinear(const BitmapValues& w, const float* x, int64_t m, int64_t row_begin, int64_t row_end, float* sums,
                  int64_t n) {
  switch (w.dtype) {
    case DType::kFloat32: return Multiply<DType::kFloat32>(w, x, m, row_begin, row_end, sums, n);
    case DType::kFloat16: return Multiply<DType::kFloat16>(w, x, m, row_begin, row_end, sums, n);
    default: return Multiply<DType::kBFloat16>(w, x, m, row_begin, row_end, sums, n);
  }
}

}  // namespace prism::cpu::avx2
PRISM_TARGET_END
#endif
