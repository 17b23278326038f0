// Codes of a 64-column block are spread to bytes, expanded to their columns onto a register of zero points, and looked
// up as bf16 differences (q - z), exact, and 0 where pruned; bf16 dot products with both parts of the activations and
// one multiplication by the scale per group follow. Even and odd columns go apart: a 16-bit look-up ignores the high
// byte of its index, a shift brings it down.
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
using avx512::kGridStride;
using avx512::Prefetcher;

PRISM_DEFINE_UNROLL

// For one zero point: bf16 of (q - z) by the low five bits of an index, whatever stands above the code; and the bytes
// that pruned columns get, whose difference is 0.
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

// How groups lie over blocks: one each, whole blocks, or several to a block.
enum class Groups { kOneBlock, kBlocks, kParts };

// 64 columns of one row: q - z as bf16.
struct Weights {
  __m512bh even, odd;
};

inline PRISM_INLINE Weights LookUp(__m512i columns, __m512i table) {
  return {(__m512bh)_mm512_permutexvar_epi16(columns, table),
          (__m512bh)_mm512_permutexvar_epi16(_mm512_srli_epi16(columns, 8), table)};
}

// One zero point for the block.
inline PRISM_INLINE Weights Decode(__m512i codes, uint64_t mask, const Levels& levels) {
  const __m512i columns = avx512::ExpandOnto(_mm512_load_si512(levels.pruned), mask, codes);
  return LookUp(columns, _mm512_load_si512(levels.difference));
}

// Spreads the grid of the groups of one block over its columns and its lanes of four columns; codes of at most 4 bits.
class Parts {
 public:
  explicit Parts(const BitmapDualShift& w) : code_mask_(_mm512_set1_epi8(static_cast<char>((1 << w.bits) - 1))) {
    alignas(64) uint8_t columns[64];
    alignas(64) int32_t lanes[16];
    alignas(64) uint16_t differences[32];
    for (int i = 0; i < 64; ++i) columns[i] = static_cast<uint8_t>(i / w.group_size);
    for (int i = 0; i < 16; ++i) lanes[i] = static_cast<int32_t>(4 * i / w.group_size);
    // Indices are 5-bit two's complement.
    for (int i = 0; i < 32; ++i) differences[i] = FloatToBFloat16(static_cast<float>(i < 16 ? i : i - 32));
    columns_ = _mm512_load_si512(columns);
    lanes_ = _mm512_load_si512(lanes);
    differences_ = _mm512_load_si512(differences);
  }

  Weights Decode(__m512i codes, uint64_t mask, const uint8_t* zero) const {
    const __m128i zeros = _mm_loadu_si128(reinterpret_cast<const __m128i*>(zero));
    const __m512i z = _mm512_permutexvar_epi8(columns_, _mm512_broadcast_i32x4(zeros));
    const __m512i columns = avx512::ExpandOnto(z, mask, _mm512_and_si512(codes, code_mask_));
    return LookUp(_mm512_sub_epi8(columns, z), differences_);
  }

  __m512 Scale(const float* scale) const { return _mm512_permutexvar_ps(lanes_, _mm512_loadu_ps(scale)); }

 private:
  __m512i code_mask_, columns_, lanes_, differences_;
};

template <int kRows, int kTokens>
struct Sums {
  __m512 of[kRows][kTokens];
};

// Rows row ... row + kRows - 1 times the kTokens first tokens of x [NumBlocks(k), m, 128]. Not inlined: gcc spills once
// several variants share a function.
template <int kBits, int kRows, int kTokens, Groups kGroups>
__attribute__((noinline)) void MultiplyRows(const BitmapDualShift& w, const BlockCodes<kBits>& block_codes,
                                            const Levels* levels, const Parts& parts, Grid<kRows>& grid,
                                            const uint16_t* x, int64_t m, int64_t row, float* sums, int64_t n) {
  const int64_t blocks = NumBlocks(w.k), bitmap_stride = blocks * 8;
  const int64_t blocks_per_group = kGroups == Groups::kBlocks ? CeilDiv(w.group_size, kBlock) : 1;
  const int64_t groups_per_block = kGroups == Groups::kParts ? kBlock / w.group_size : 1;
  const uint8_t *codes[kRows], *bitmap = w.RowBitmap(row);
  Sums<kRows, kTokens> total = {};
  Unroll<kRows>([&](auto r) PRISM_INLINE { codes[r] = grid.Stream(r, row + r); });
  Prefetcher prefetcher(w, row, kRows);
  // One block of all rows.
  const auto add_block = [&](Sums<kRows, kTokens>& sum, const uint8_t* zero) PRISM_INLINE {
    prefetcher.Next();
    Weights weights[kRows];
    Unroll<kRows>([&](auto r) PRISM_INLINE {
      uint64_t mask;
      std::memcpy(&mask, bitmap + r * bitmap_stride, sizeof mask);
      const __m512i block = block_codes.Load(codes[r]);
      if constexpr (kGroups == Groups::kParts) {
        weights[r] = parts.Decode(block, mask, zero + r * kGridStride);
      } else {
        weights[r] = Decode(block, mask, levels[zero[r * kGridStride]]);
      }
      codes[r] += block_codes.Bytes(_mm_popcnt_u64(mask));
    });
    Unroll<kTokens>([&](auto t) PRISM_INLINE {
      Unroll<4>([&](auto part) PRISM_INLINE {  // high even, high odd, low even, low odd
        const __m512bh xp = (__m512bh)_mm512_loadu_si512(x + t * 2 * kBlock + 32 * part);
        Unroll<kRows>([&](auto r) PRISM_INLINE {
          sum.of[r][t] = _mm512_dpbf16_ps(sum.of[r][t], part % 2 == 0 ? weights[r].even : weights[r].odd, xp);
        });
      });
    });
    bitmap += 8;
    x += m * 2 * kBlock;
  };
  int64_t left = blocks;
  for (int64_t group = 0; left > 0; group += kGridGroups) {
    grid.Load(row, group);
    const uint8_t* zero = grid.zero[0];
    const float* scale = grid.scale[0];
    const float* end = scale + std::min(kGridGroups, w.num_groups - group);
    for (; scale < end; scale += groups_per_block, zero += groups_per_block) {
      Sums<kRows, kTokens> sum = {};
      if constexpr (kGroups == Groups::kBlocks) {
        for (int64_t i = std::min(blocks_per_group, left); i > 0; --i, --left) add_block(sum, zero);
      } else {
        add_block(sum, zero);
        --left;
      }
      Unroll<kRows>([&](auto r) PRISM_INLINE {
        __m512 row_scale;
        if constexpr (kGroups == Groups::kParts) {
          row_scale = parts.Scale(scale + r * kGridStride);
        } else {
          row_scale = _mm512_set1_ps(scale[r * kGridStride]);
        }
        Unroll<kTokens>([&](auto t) PRISM_INLINE {
          total.of[r][t] = _mm512_fmadd_ps(sum.of[r][t], row_scale, total.of[r][t]);
        });
      });
    }
  }
  Unroll<kRows>([&](auto r) PRISM_INLINE {
    Unroll<kTokens>([&](auto t) PRISM_INLINE { sums[t * n + row + r] = ReduceAdd(total.of[r][t]); });
  });
}

template <int kBits, Groups kGroups>
class Multiplier {
 public:
  Multiplier(const BitmapDualShift& w, const uint16_t* x, int64_t m, float* sums, int64_t n)
      : w_(w), x_(x), sums_(sums), m_(m), n_(n), levels_(32), codes_(w.bits), parts_(w) {
    FillLevels(w, levels_.data());
  }

  void Run(int64_t row_begin, int64_t row_end) {
    if (m_ == 1) {
      RunRows<4>(row_begin, row_end);
    } else {
      RunRows<2>(row_begin, row_end);
    }
  }

 private:
  template <int kRows>
  void RunRows(int64_t row_begin, int64_t row_end) {
    Grid<kRows> grid(w_);
    int64_t row = row_begin;
    for (; row + kRows <= row_end; row += kRows) RunTokens<kRows>(grid, row);
    if constexpr (kRows > 1) RunRows<1>(row, row_end);
  }

  template <int kRows>
  void RunTokens(Grid<kRows>& grid, int64_t row) {
    int64_t t = 0;
    if constexpr (kRows < 4) {
      for (; t + 4 <= m_; t += 4) RunTile<kRows, 4>(grid, t, row);
      if (m_ - t == 3) return RunTile<kRows, 3>(grid, t, row);
      if (m_ - t == 2) return RunTile<kRows, 2>(grid, t, row);
    }
    if (m_ - t == 1) RunTile<kRows, 1>(grid, t, row);
  }

  template <int kRows, int kTokens>
  void RunTile(Grid<kRows>& grid, int64_t t, int64_t row) {
    MultiplyRows<kBits, kRows, kTokens, kGroups>(w_, codes_, levels_.data(), parts_, grid, x_ + t * 2 * kBlock, m_, row,
                                                 sums_ + t * n_, n_);
  }

  const BitmapDualShift& w_;
  const uint16_t* x_;
  float* sums_;
  int64_t m_, n_;
  std::vector<Levels> levels_;
  BlockCodes<kBits> codes_;
  Parts parts_;
};

template <Groups kGroups>
void Multiply(const BitmapDualShift& w, const uint16_t* x, int64_t m, int64_t row_begin, int64_t row_end, float* sums,
              int64_t n) {
  if (w.bits == 4) return Multiplier<4, kGroups>(w, x, m, sums, n).Run(row_begin, row_end);
  Multiplier<0, kGroups>(w, x, m, sums, n).Run(row_begin, row_end);
}

}  // namespace

void BitmapDualShiftLinear(const BitmapDualShift& w, const uint16_t* x, int64_t m, int64_t row_begin, int64_t row_end,
                           float* sums, int64_t n) {
  if (w.group_size == kBlock) return Multiply<Groups::kOneBlock>(w, x, m, row_begin, row_end, sums, n);
  if (w.GroupsAreBlocks()) return Multiply<Groups::kBlocks>(w, x, m, row_begin, row_end, sums, n);
  Multiply<Groups::kParts>(w, x, m, row_begin, row_end, sums, n);
}

}  // namespace prism::cpu::avx512_bf16
PRISM_TARGET_END
#endif
