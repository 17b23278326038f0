// float32 activations. Groups of whole blocks: codes are expanded onto zero points, widened and multiplied group by
// group; any other group size: each row is decoded to float32 once and multiplied with all tokens.
#include "bitmap_dual_shift_linear.h"
#include "isa.h"

#if PRISM_X86
#include <immintrin.h>

#include "bitmap_dual_shift_avx512.h"

PRISM_TARGET_BEGIN(PRISM_TARGET_AVX512)
namespace prism::cpu::avx512 {
namespace {

constexpr int kMaxTokens = 4;

float Dot(const float* x, const float* weight, int64_t columns) {
  __m512 sums[4] = {};
  for (int64_t j = 0; j < columns; j += kBlock) {
    for (int i = 0; i < 4; ++i) {
      sums[i] = _mm512_fmadd_ps(_mm512_loadu_ps(x + j + 16 * i), _mm512_loadu_ps(weight + j + 16 * i), sums[i]);
    }
  }
  return ReduceAdd(_mm512_add_ps(_mm512_add_ps(sums[0], sums[1]), _mm512_add_ps(sums[2], sums[3])));
}

void MultiplyDecoded(const BitmapDualShift& w, const float* x, int64_t m, int64_t row_begin, int64_t row_end,
                     float* sums, int64_t n) {
  const int64_t columns = NumBlocks(w.k) * kBlock;
  RowDecoder decoder(w);
  std::vector<float> weight(static_cast<size_t>(columns));
  for (int64_t row = row_begin; row < row_end; ++row) {
    decoder.Decode(row, [&](int64_t j, const Block& block) PRISM_INLINE {
      for (int i = 0; i < 4; ++i) _mm512_storeu_ps(weight.data() + j + 16 * i, block.part[i]);
    });
    for (int64_t t = 0; t < m; ++t) sums[t * n + row] = Dot(x + t * columns, weight.data(), columns);
  }
}

template <int kTokens, bool kLevels>
void MultiplyRow(const BitmapDualShift& w, const Unpacker& unpacker, const Steps& steps, Grid<1>& grid, const float* x,
                 int64_t row, float* sums, int64_t n) {
  const int64_t blocks = NumBlocks(w.k), blocks_per_group = CeilDiv(w.group_size, kBlock), x_stride = blocks * kBlock;
  const uint8_t *codes = grid.Stream(0, row), *bitmap = w.RowBitmap(row);
  Prefetcher prefetcher(w, row, 1);
  __m512 total[kTokens] = {};
  int64_t left = blocks;
  for (int64_t g = 0; left > 0; ++g) {
    if (g % kGridGroups == 0) grid.Load(row, g);
    const __m512i zero = _mm512_set1_epi8(static_cast<char>(grid.zero[0][g % kGridGroups]));
    __m512 sum[kTokens][2] = {};
    for (int64_t i = std::min(blocks_per_group, left); i > 0; --i, --left, bitmap += 8, x += kBlock) {
      prefetcher.Next();
      uint64_t mask;
      std::memcpy(&mask, bitmap, sizeof mask);
      const __m512i columns = ExpandOnto(zero, mask, unpacker.Load(codes, kBlock));
      codes += PackedBytes(_mm_popcnt_u64(mask), w.bits);
      Unroll<4>([&](auto part) PRISM_INLINE {
        const __m512 weight = steps.Get<kLevels, part>(columns, zero);
        Unroll<kTokens>([&](auto t) PRISM_INLINE {
          __m512& s = sum[t][part % 2];
          s = _mm512_fmadd_ps(weight, _mm512_loadu_ps(x + t * x_stride + 16 * part), s);
        });
      });
    }
    const __m512 scale = _mm512_set1_ps(grid.scale[0][g % kGridGroups]);
    Unroll<kTokens>([&](auto t) PRISM_INLINE {
      total[t] = _mm512_fmadd_ps(_mm512_add_ps(sum[t][0], sum[t][1]), scale, total[t]);
    });
  }
  for (int t = 0; t < kTokens; ++t) sums[t * n + row] = ReduceAdd(total[t]);
}

template <bool kLevels>
void MultiplyRows(const BitmapDualShift& w, const float* x, int64_t m, int64_t row_begin, int64_t row_end, float* sums,
                  int64_t n) {
  const int64_t columns = NumBlocks(w.k) * kBlock;
  const Unpacker unpacker(w.bits);
  const Steps steps(w);
  Grid<1> grid(w);
  for (int64_t row = row_begin; row < row_end; ++row) {
    for (int64_t t = 0; t < m; t += kMaxTokens) {
      const float* xt = x + t * columns;
      float* out = sums + t * n;
      switch (std::min<int64_t>(m - t, kMaxTokens)) {
        case 1: MultiplyRow<1, kLevels>(w, unpacker, steps, grid, xt, row, out, n); break;
        case 2: MultiplyRow<2, kLevels>(w, unpacker, steps, grid, xt, row, out, n); break;
        case 3: MultiplyRow<3, kLevels>(w, unpacker, steps, grid, xt, row, out, n); break;
        default: MultiplyRow<4, kLevels>(w, unpacker, steps, grid, xt, row, out, n); break;
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

}  // namespace prism::cpu::avx512
PRISM_TARGET_END
#endif
