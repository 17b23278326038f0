// Codes of a 64-column block are spread to bytes, expanded to their columns onto a register of zero points, and looked up
// as bf16 differences (q - z), exact, and 0 where pruned; bf16 dot products with both parts of the activations and one
// multiplication by the scale per group follow. Even and odd columns go apart: a 16-bit look-up ignores the high byte of
// its index, a shift brings it down.
#include "bitmap_dual_shift_linear.h"
#include "isa.h"

#if PRISM_X86
#include <immintrin.h>

#include "bitmap_dual_shift_avx512.h"

PRISM_TARGET_BEGIN(PRISM_TARGET_AVX512_BF16)
namespace prism::cpu::avx512_bf16 {
namespace {

using avx512::Grid;
using avx512::ReduceAdd;
using avx512::kGridGroups;
using avx512::Prefetcher;

PRISM_DEFINE_UNROLL

// For one zero point: bf16 of (q - z) by the low five bits of an index, whatever stands above the code; and the bytes that
// pruned columns get, whose difference is 0.
struct alignas(64) Levels {
  uint16_t difference[32];
  uint8_t pruned[64];
};

void FillLevels(const BitmapDualShift& w, Levels* levels) {
  const int size = 1 << w.bits;
  for (int z = 0; z < size; ++z) {
    for (int i = 0; i < 32; ++i) levels[z].difference[i] = FloatToBFloat16(static_cast<float>(i % size - z));
    std::memset(levels[z].pruned, z, sizeof levels[z].pruned);
  }
}

// 64 bytes whose low `bits` bits are the next codes; higher bits are not cleared.
template <int kBits>
struct BlockCodes {
  explicit BlockCodes(int bits) : bits_(bits) {
    alignas(64) uint8_t spread[64], shifts[64];
    for (int i = 0; i < 64; ++i) {
      spread[i] = static_cast<uint8_t>((i / 8) * bits + (i % 8) % bits);
      shifts[i] = static_cast<uint8_t>((i % 8) * bits);
    }
    spread_ = _mm512_load_si512(spread);
    shifts_ = _mm512_load_si512(shifts);
  }
  __m512i Load(const uint8_t* codes) const {
    return _mm512_multishift_epi64_epi8(shifts_, _mm512_permutexvar_epi8(spread_, _mm512_loadu_si512(codes)));
  }
  int64_t Bytes(int64_t count) const { return (count * bits_ + 7) >> 3; }

 private:
  int bits_;
  __m512i spread_, shifts_;
};

template <>
struct BlockCodes<4> {
  explicit BlockCodes(int) {}
  __m512i Load(const uint8_t* codes) const {
    const __m512i pairs = _mm512_cvtepu8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes)));
    return _mm512_or_si512(pairs, _mm512_slli_epi16(pairs, 4));
  }
  int64_t Bytes(int64_t count) const { return (count + 1) >> 1; }
};

// The sums over one block of one row, for each token.
template <int kTokens>
struct Sums {
  __m512 token[kTokens];
};

template <int kBits, int kTokens>
inline __attribute__((always_inline)) Sums<kTokens> AddBlock(Sums<kTokens> sums, __m512i codes, uint64_t mask,
                                                             const Levels& levels, const uint16_t* x, int64_t x_stride) {
  const __m512i columns = avx512::ExpandOnto(_mm512_load_si512(levels.pruned), mask, codes);
  const __m512i table = _mm512_load_si512(levels.difference);
  const __m512bh even = (__m512bh)_mm512_permutexvar_epi16(columns, table);
  const __m512bh odd = (__m512bh)_mm512_permutexvar_epi16(_mm512_srli_epi16(columns, 8), table);
  Unroll<kTokens>([&](auto t) PRISM_INLINE {
    const uint16_t* xt = x + t * x_stride;
    __m512 other = _mm512_dpbf16_ps(_mm512_setzero_ps(), odd, (__m512bh)_mm512_loadu_si512(xt + 32));
    __m512 sum = _mm512_dpbf16_ps(sums.token[t], even, (__m512bh)_mm512_loadu_si512(xt));
    other = _mm512_dpbf16_ps(other, odd, (__m512bh)_mm512_loadu_si512(xt + 96));
    sum = _mm512_dpbf16_ps(sum, even, (__m512bh)_mm512_loadu_si512(xt + 64));
    sums.token[t] = _mm512_add_ps(sum, other);
  });
  return sums;
}

// Rows row ... row + kRows - 1 times kTokens tokens.
template <int kBits, int kRows, int kTokens, bool kOneBlockGroups>
void MultiplyRows(const BitmapDualShift& w, const BlockCodes<kBits>& block_codes, const Levels* levels, Grid<kRows>& grid,
                  const uint16_t* x, int64_t row, float* sums, int64_t n) {
  const int64_t blocks = NumBlocks(w.k), x_stride = blocks * kBlock * 2, bitmap_stride = blocks * 8;
  const int64_t blocks_per_group = kOneBlockGroups ? 1 : CeilDiv(w.group_size, kBlock);
  const uint8_t *codes[kRows], *bitmap = w.RowBitmap(row);
  Sums<kTokens> totals[kRows];
  Unroll<kRows>([&](auto r) PRISM_INLINE {
    codes[r] = grid.Stream(r, row + r);
    totals[r] = {};
  });
  Prefetcher prefetcher(w, row, kRows);
  // One block of all rows.
  const auto add_block = [&](Sums<kTokens>(&sum)[kRows], const uint8_t* zero) PRISM_INLINE {
    prefetcher.Next();
    Unroll<kRows>([&](auto r) PRISM_INLINE {
      uint64_t mask;
      std::memcpy(&mask, bitmap + r * bitmap_stride, sizeof mask);
      sum[r] = AddBlock<kBits, kTokens>(sum[r], block_codes.Load(codes[r]), mask, levels[zero[r * kGridGroups]], x, x_stride);
      codes[r] += block_codes.Bytes(_mm_popcnt_u64(mask));
    });
    bitmap += 8;
    x += 2 * kBlock;
  };
  int64_t left = blocks;
  for (int64_t group = 0; left > 0; group += kGridGroups) {
    grid.Load(row, group);
    const uint8_t* zero = grid.zero[0];
    const float* scale = grid.scale[0];
    for (const float* end = scale + std::min(kGridGroups, w.num_groups - group); scale != end; ++scale, ++zero) {
      Sums<kTokens> sum[kRows] = {};
      if constexpr (kOneBlockGroups) {
        add_block(sum, zero);
        --left;
      } else {
        for (int64_t i = std::min(blocks_per_group, left); i > 0; --i, --left) add_block(sum, zero);
      }
      Unroll<kRows>([&](auto r) PRISM_INLINE {
        const __m512 row_scale = _mm512_set1_ps(scale[r * kGridGroups]);
        Unroll<kTokens>([&](auto t) PRISM_INLINE {
          totals[r].token[t] = _mm512_fmadd_ps(sum[r].token[t], row_scale, totals[r].token[t]);
        });
      });
    }
  }
  Unroll<kRows>([&](auto r) PRISM_INLINE {
    Unroll<kTokens>([&](auto t) PRISM_INLINE { sums[t * n + row + r] = ReduceAdd(totals[r].token[t]); });
  });
}

template <int kBits, bool kOneBlockGroups>
class Multiplier {
 public:
  Multiplier(const BitmapDualShift& w, const uint16_t* x, float* sums, int64_t n)
      : w_(w), x_(x), sums_(sums), n_(n), columns_(NumBlocks(w.k) * kBlock), levels_(32), codes_(w.bits) {
    FillLevels(w, levels_.data());
  }

  void Run(int64_t m, int64_t row_begin, int64_t row_end) {
    if (m == 1) {
      RunRows<4>(m, row_begin, row_end);
    } else {
      RunRows<2>(m, row_begin, row_end);
    }
  }

 private:
  template <int kRows>
  void RunRows(int64_t m, int64_t row_begin, int64_t row_end) {
    Grid<kRows> grid(w_);
    int64_t row = row_begin;
    for (; row + kRows <= row_end; row += kRows) RunTokens<kRows>(grid, m, row);
    if constexpr (kRows > 1) RunRows<1>(m, row, row_end);
  }

  template <int kRows>
  void RunTokens(Grid<kRows>& grid, int64_t m, int64_t row) {
    int64_t t = 0;
    if constexpr (kRows < 4) {
      for (; t + 4 <= m; t += 4) RunTile<kRows, 4>(grid, t, row);
      if (m - t == 3) return RunTile<kRows, 3>(grid, t, row);
      if (m - t == 2) return RunTile<kRows, 2>(grid, t, row);
    }
    if (m - t == 1) RunTile<kRows, 1>(grid, t, row);
  }

  template <int kRows, int kTokens>
  void RunTile(Grid<kRows>& grid, int64_t t, int64_t row) {
    MultiplyRows<kBits, kRows, kTokens, kOneBlockGroups>(w_, codes_, levels_.data(), grid, x_ + t * columns_ * 2, row,
                                                         sums_ + t * n_, n_);
  }

  const BitmapDualShift& w_;
  const uint16_t* x_;
  float* sums_;
  int64_t n_, columns_;
  std::vector<Levels> levels_;
  BlockCodes<kBits> codes_;
};

}  // namespace

void BitmapDualShiftLinear(const BitmapDualShift& w, const uint16_t* x, int64_t m, int64_t row_begin, int64_t row_end,
                           float* sums, int64_t n) {
  if (w.bits != 4) {
    Multiplier<0, false>(w, x, sums, n).Run(m, row_begin, row_end);
  } else if (w.group_size == kBlock) {
    Multiplier<4, true>(w, x, sums, n).Run(m, row_begin, row_end);
  } else {
    Multiplier<4, false>(w, x, sums, n).Run(m, row_begin, row_end);
  }
}

}  // namespace prism::cpu::avx512_bf16
PRISM_TARGET_END
#endif
