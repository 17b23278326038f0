// Groups of whole blocks: the columns of a block are multiplied as they are decoded, for up to four tokens, and scaled
// group by group; any other group size: each row is decoded to float32 once and multiplied with all tokens.
#include "bitmap_dual_shift_linear.h"
#include "isa.h"

#if PRISM_X86
#include <immintrin.h>

#include "bitmap_dual_shift_avx2.h"
#include "unroll.h"

PRISM_TARGET_BEGIN(PRISM_TARGET_AVX2)
namespace prism::cpu::avx2 {
namespace {

PRISM_DEFINE_UNROLL

constexpr int kMaxTokens = 4;

float HorizontalSum(__m256 v) {
  const __m128 half = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  const __m128 pair = _mm_add_ps(half, _mm_movehl_ps(half, half));
  return _mm_cvtss_f32(_mm_add_ss(pair, _mm_movehdup_ps(pair)));
}

float Dot(const float* x, const float* weight, int64_t columns) {
  __m256 sums[4] = {};
  for (int64_t j = 0; j < columns; j += 32) {
    for (int i = 0; i < 4; ++i) {
      sums[i] = _mm256_fmadd_ps(_mm256_loadu_ps(x + j + 8 * i), _mm256_loadu_ps(weight + j + 8 * i), sums[i]);
    }
  }
  return HorizontalSum(_mm256_add_ps(_mm256_add_ps(sums[0], sums[1]), _mm256_add_ps(sums[2], sums[3])));
}

void MultiplyDecoded(const BitmapDualShift& w, const float* x, int64_t m, int64_t row_begin, int64_t row_end,
                     float* sums, int64_t n) {
  const int64_t columns = NumBlocks(w.k) * kBlock;
  RowDecoder decoder(w);
  std::vector<float> weight(static_cast<size_t>(columns));
  for (int64_t row = row_begin; row < row_end; ++row) {
    decoder.Decode(row, weight.data());
    for (int64_t t = 0; t < m; ++t) sums[t * n + row] = Dot(x + t * columns, weight.data(), columns);
  }
}

template <int kTokens, bool kLevels>
void MultiplyRow(const BitmapDualShift& w, const Decoder& decoder, const uint8_t* codes, const float* x, int64_t row,
                 float* sums, int64_t n) {
  const int64_t blocks = NumBlocks(w.k), blocks_per_group = CeilDiv(w.group_size, kBlock), x_stride = blocks * kBlock;
  const uint8_t* bitmap = w.RowBitmap(row);
  __m256 total[kTokens] = {};
  int64_t left = blocks;
  for (int64_t g = 0; left > 0; ++g) {
    const uint32_t code = GroupZero(w, row, g);
    const __m128i fill = _mm_set1_epi8(static_cast<char>(code));
    const __m256 zero = _mm256_set1_ps(static_cast<float>(code));
    __m256 sum[kTokens][2] = {};
    for (int64_t i = std::min(blocks_per_group, left); i > 0; --i, --left, bitmap += 8, codes += kBlock, x += kBlock) {
      int64_t rank = 0;
      Unroll<8>([&](auto byte) PRISM_INLINE {
        const __m256i columns = decoder.Columns(codes + rank, bitmap[byte], fill);
        rank += _mm_popcnt_u32(bitmap[byte]);
        const __m256 step = kLevels ? decoder.Level(columns) : _mm256_sub_ps(_mm256_cvtepi32_ps(columns), zero);
        Unroll<kTokens>([&](auto t) PRISM_INLINE {
          __m256& s = sum[t][byte % 2];
          s = _mm256_fmadd_ps(step, _mm256_loadu_ps(x + t * x_stride + 8 * byte), s);
        });
      });
    }
    const __m256 scale = _mm256_set1_ps(BFloat16ToFloat(w.RowScale(row)[g]));
    Unroll<kTokens>([&](auto t) PRISM_INLINE {
      total[t] = _mm256_fmadd_ps(_mm256_add_ps(sum[t][0], sum[t][1]), scale, total[t]);
    });
  }
  Unroll<kTokens>([&](auto t) PRISM_INLINE { sums[t * n + row] = HorizontalSum(total[t]); });
}

template <bool kLevels>
void MultiplyRows(const BitmapDualShift& w, const float* x, int64_t m, int64_t row_begin, int64_t row_end, float* sums,
                  int64_t n) {
  const int64_t columns = NumBlocks(w.k) * kBlock;
  const Decoder decoder(w);
  RowStreams streams = w.Streams(1);
  std::vector<uint8_t> codes(static_cast<size_t>(columns + 8));
  for (int64_t row = row_begin; row < row_end; ++row) {
    decoder.SpreadRow(w, row, streams.Get(0, w.row_offsets[row]), codes.data());
    for (int64_t t = 0; t < m; t += kMaxTokens) {
      const float* xt = x + t * columns;
      float* out = sums + t * n;
      switch (std::min<int64_t>(m - t, kMaxTokens)) {
        case 1: MultiplyRow<1, kLevels>(w, decoder, codes.data(), xt, row, out, n); break;
        case 2: MultiplyRow<2, kLevels>(w, decoder, codes.data(), xt, row, out, n); break;
        case 3: MultiplyRow<3, kLevels>(w, decoder, codes.data(), xt, row, out, n); break;
        default: MultiplyRow<4, kLevels>(w, decoder, codes.data(), xt, row, out, n); break;
      }
    }
  }
}

}  // namespace

void BitmapDualShiftLinear(const BitmapDualShift& w, const float* x, int64_t m, int64_t row_begin, int64_t row_end,
                           float* sums, int64_t n) {
  if (!w.GroupsAreBlocks()) return MultiplyDecoded(w, x, m, row_begin, row_end, sums, n);
  if (w.levels != nullptr) return MultiplyRows<true>(w, x, m, row_begin, row_end, sums, n);
  MultiplyRows<false>(w, x, m, row_begin, row_end, sums, n);
}

}  // namespace prism::cpu::avx2
PRISM_TARGET_END
#endif
