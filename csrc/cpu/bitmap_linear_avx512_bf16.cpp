// 32 columns at a time: the survivors are expanded to their columns, a bf16 dot product with x follows; popcounts of
// the mask advance the stream. Two rows or more are in flight, because each is a chain of popcounts.
#include "bitmap_linear.h"
#include "isa.h"

#if PRISM_X86
#include <immintrin.h>

#include "codes_avx512.h"
#include "unroll.h"

PRISM_TARGET_BEGIN(PRISM_TARGET_AVX512_BF16)
namespace prism::cpu::avx512_bf16 {
namespace {

PRISM_DEFINE_UNROLL

constexpr int64_t kPrefetchBytes = 12288;  // at least; always past the rows in flight

// The fresh zero, kept in front of the expansion by the empty asm, breaks the dependency of vpexpandw on the old value
// of its destination.
inline __m512bh Expand(__mmask32 mask, __m512i values) {
  __m512i zero = _mm512_setzero_si512();
  asm("" : "+v"(zero));
  return (__m512bh)_mm512_mask_expand_epi16(zero, mask, values);
}

// Rows row ... row + kRows - 1 times the kTokens first tokens of x [NumBlocks(k), m, 64]. Not inlined: gcc spills once
// several variants share a function.
template <int kRows, int kTokens>
__attribute__((noinline)) void MultiplyRows(const BitmapValues& w, RowStreams& streams, const uint16_t* x, int64_t m,
                                            int64_t row, float* sums, int64_t n) {
  const int64_t blocks = NumBlocks(w.k), bitmap_stride = blocks * 8;
  const uint8_t *bitmap = w.RowBitmap(row), *values[kRows];
  __m512 sum[kRows][kTokens][2];
  Unroll<kRows>([&](auto r) PRISM_INLINE {
    values[r] = streams.Get(r, w.RowBegin(row + r));
    Unroll<kTokens>([&](auto t) PRISM_INLINE { sum[r][t][0] = sum[r][t][1] = _mm512_setzero_ps(); });
  });
  const int64_t set_bytes = w.RowBegin(row + kRows) - w.RowBegin(row), ahead = std::max(set_bytes, kPrefetchBytes);
  const bool dense = set_bytes > kRows * blocks * 64;  // more than one cache line per block
  const int64_t bitmap_ahead = std::max(kRows * bitmap_stride, kPrefetchBytes / 4);
  for (int64_t b = 0; b < blocks; ++b, bitmap += 8, x += m * kBlock) {
    Unroll<kRows>([&](auto r) PRISM_INLINE {
      _mm_prefetch(values[r] + ahead, _MM_HINT_T0);
      if (dense) _mm_prefetch(values[r] + ahead + 64, _MM_HINT_T0);
      Unroll<2>([&](auto half) PRISM_INLINE {
        uint32_t mask;
        std::memcpy(&mask, bitmap + r * bitmap_stride + 4 * half, sizeof mask);
        const __m512bh weight = Expand(mask, _mm512_loadu_si512(values[r]));
        values[r] += 2 * _mm_popcnt_u32(mask);
        Unroll<kTokens>([&](auto t) PRISM_INLINE {
          const __m512bh xt = (__m512bh)_mm512_loadu_si512(x + t * kBlock + 32 * half);
          sum[r][t][half] = _mm512_dpbf16_ps(sum[r][t][half], weight, xt);
        });
      });
    });
    _mm_prefetch(bitmap + b * (kRows - 1) * 8 + bitmap_ahead, _MM_HINT_T0);  // evenly over the next rows
  }
  Unroll<kRows>([&](auto r) PRISM_INLINE {
    Unroll<kTokens>([&](auto t) PRISM_INLINE {
      sums[t * n + row + r] = avx512::ReduceAdd(_mm512_add_ps(sum[r][t][0], sum[r][t][1]));
    });
  });
}

template <int kRows>
void MultiplyTokens(const BitmapValues& w, RowStreams& streams, const uint16_t* x, int64_t m, int64_t row, float* sums,
                    int64_t n) {
  int64_t t = 0;
  for (; t + 4 <= m; t += 4) MultiplyRows<kRows, 4>(w, streams, x + t * kBlock, m, row, sums + t * n, n);
  switch (m - t) {
    case 3: MultiplyRows<kRows, 3>(w, streams, x + t * kBlock, m, row, sums + t * n, n); break;
    case 2: MultiplyRows<kRows, 2>(w, streams, x + t * kBlock, m, row, sums + t * n, n); break;
    case 1: MultiplyRows<kRows, 1>(w, streams, x + t * kBlock, m, row, sums + t * n, n); break;
    default: break;
  }
}

}  // namespace

void BitmapLinear(const BitmapValues& w, const uint16_t* x, int64_t m, int64_t row_begin, int64_t row_end, float* sums,
                  int64_t n) {
  RowStreams streams = w.Streams(4);
  int64_t row = row_begin;
  if (m == 1) {
    for (; row + 4 <= row_end; row += 4) MultiplyRows<4, 1>(w, streams, x, m, row, sums, n);
  }
  for (; row + 2 <= row_end; row += 2) MultiplyTokens<2>(w, streams, x, m, row, sums, n);
  for (; row < row_end; ++row) MultiplyTokens<1>(w, streams, x, m, row, sums, n);
}

}  // namespace prism::cpu::avx512_bf16
PRISM_TARGET_END
#endif
