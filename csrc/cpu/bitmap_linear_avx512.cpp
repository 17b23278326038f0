// 32 columns at a time: the survivors are expanded to their columns, widened to float32 and multiplied with up to four
// tokens.
#include "bitmap_linear.h"
#include "isa.h"

#if PRISM_X86
#include <immintrin.h>

#include "bitmap_values_avx512.h"
#include "codes_avx512.h"
#include "unroll.h"

PRISM_TARGET_BEGIN(PRISM_TARGET_AVX512)
namespace prism::cpu::avx512 {
namespace {

PRISM_DEFINE_UNROLL

constexpr int64_t kPrefetchBytes = 8192;

// Columns 16 * part ... + 15 of 32, of which `words` holds all (16-bit dtypes), or the next survivors at `values` do.
template <DType kDType, int kPart>
inline PRISM_INLINE __m512 Widen(__m512i words, uint32_t mask, const uint8_t* values) {
  if constexpr (kDType == DType::kFloat32) {
    const __mmask16 own = static_cast<__mmask16>(mask >> (16 * kPart));
    const int skip = kPart == 0 ? 0 : _mm_popcnt_u32(mask & 0xffff);
    return _mm512_castsi512_ps(ExpandDwords(own, _mm512_loadu_si512(values + 4 * skip)));
  } else {
    const __m256i half = _mm512_maskz_extracti64x4_epi64(0xf, words, kPart);
    if constexpr (kDType == DType::kFloat16) return _mm512_cvtph_ps(half);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
  }
}

// Rows row ... row + kRows - 1 times kTokens tokens; x [kTokens, NumBlocks(k) * 64].
template <DType kDType, int kRows, int kTokens>
void MultiplyRows(const BitmapValues& w, RowStreams& streams, const float* x, int64_t row, float* sums, int64_t n) {
  constexpr int64_t kBytes = kDType == DType::kFloat32 ? 4 : 2;
  const int64_t blocks = NumBlocks(w.k), x_stride = blocks * kBlock, bitmap_stride = blocks * 8;
  const uint8_t *bitmap = w.RowBitmap(row), *values[kRows];
  __m512 sum[kRows][kTokens][2];
  Unroll<kRows>([&](auto r) PRISM_INLINE {
    values[r] = streams.Get(r, w.RowBegin(row + r));
    Unroll<kTokens>([&](auto t) PRISM_INLINE { sum[r][t][0] = sum[r][t][1] = _mm512_setzero_ps(); });
  });
  const int64_t ahead = std::max(w.RowBegin(row + kRows) - w.RowBegin(row), kPrefetchBytes);
  for (int64_t half_blocks = 2 * blocks; half_blocks > 0; --half_blocks, bitmap += 4, x += 32) {
    Unroll<kRows>([&](auto r) PRISM_INLINE {
      _mm_prefetch(values[r] + ahead, _MM_HINT_T0);
      uint32_t mask;
      std::memcpy(&mask, bitmap + r * bitmap_stride, sizeof mask);
      __m512i words = _mm512_setzero_si512();
      if constexpr (kDType != DType::kFloat32) words = ExpandWords(mask, _mm512_loadu_si512(values[r]));
      Unroll<2>([&](auto part) PRISM_INLINE {
        const __m512 weight = Widen<kDType, part>(words, mask, values[r]);
        Unroll<kTokens>([&](auto t) PRISM_INLINE {
          const __m512 xt = _mm512_loadu_ps(x + t * x_stride + 16 * part);
          sum[r][t][part] = _mm512_fmadd_ps(weight, xt, sum[r][t][part]);
        });
      });
      values[r] += kBytes * _mm_popcnt_u32(mask);
    });
  }
  Unroll<kRows>([&](auto r) PRISM_INLINE {
    Unroll<kTokens>([&](auto t) PRISM_INLINE {
      sums[t * n + row + r] = ReduceAdd(_mm512_add_ps(sum[r][t][0], sum[r][t][1]));
    });
  });
}

template <DType kDType, int kRows>
void MultiplyTokens(const BitmapValues& w, RowStreams& streams, const float* x, int64_t m, int64_t row, float* sums,
                    int64_t n) {
  const int64_t columns = NumBlocks(w.k) * kBlock;
  int64_t t = 0;
  for (; t + 4 <= m; t += 4) MultiplyRows<kDType, kRows, 4>(w, streams, x + t * columns, row, sums + t * n, n);
  switch (m - t) {
    case 3: MultiplyRows<kDType, kRows, 3>(w, streams, x + t * columns, row, sums + t * n, n); break;
    case 2: MultiplyRows<kDType, kRows, 2>(w, streams, x + t * columns, row, sums + t * n, n); break;
    case 1: MultiplyRows<kDType, kRows, 1>(w, streams, x + t * columns, row, sums + t * n, n); break;
    default: break;
  }
}

template <DType kDType>
void Multiply(const BitmapValues& w, const float* x, int64_t m, int64_t row_begin, int64_t row_end, float* sums,
              int64_t n) {
  RowStreams streams = w.Streams(2);
  int64_t row = row_begin;
  for (; row + 2 <= row_end; row += 2) MultiplyTokens<kDType, 2>(w, streams, x, m, row, sums, n);
  for (; row < row_end; ++row) MultiplyTokens<kDType, 1>(w, streams, x, m, row, sums, n);
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

}  // namespace prism::cpu::avx512
PRISM_TARGET_END
#endif
