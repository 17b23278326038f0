// A byte of a mask, 4 rows of a pair, is expanded by a shuffle from a table.
#include "bitmap_unpack.h"
#include "isa.h"

#if PRISM_X86
#include <immintrin.h>

#include <array>

#include "transpose_avx2.h"

namespace prism::cpu::avx2 {
namespace {

// Entry `mask`: for each of 8 places the rank of its survivor, 0x80 where there is none.
struct RankTable {
  alignas(64) uint8_t rank[256][8];
  constexpr RankTable() : rank() {
    for (int mask = 0; mask < 256; ++mask) {
      for (int bit = 0, next = 0; bit < 8; ++bit) {
        rank[mask][bit] = (mask >> bit & 1) != 0 ? static_cast<uint8_t>(next++) : uint8_t{0x80};
      }
    }
  }
};
constexpr RankTable kRanks;

}  // namespace
}  // namespace prism::cpu::avx2

PRISM_TARGET_BEGIN(PRISM_TARGET_AVX2)
namespace prism::cpu::avx2 {
namespace {

constexpr int kLanes = 8;

PRISM_INLINE inline __m128i Ranks(uint8_t mask) {
  return _mm_loadl_epi64(reinterpret_cast<const __m128i*>(kRanks.rank[mask]));
}

PRISM_INLINE inline __m128i Expand16(uint8_t mask, const uint8_t* values) {
  // Bytes 2 * rank and 2 * rank + 1; 0x80 doubled would lose its mark, so it is kept.
  const __m128i ranks = Ranks(mask), twice = _mm_add_epi8(ranks, ranks);
  const __m128i low = _mm_or_si128(twice, _mm_and_si128(ranks, _mm_set1_epi8(-0x80)));
  const __m128i order = _mm_unpacklo_epi8(low, _mm_or_si128(low, _mm_set1_epi8(1)));
  return _mm_shuffle_epi8(_mm_loadu_si128(reinterpret_cast<const __m128i*>(values)), order);
}

PRISM_INLINE inline __m256 Expand32(uint8_t mask, const uint8_t* values) {
  const __m256i ranks = _mm256_cvtepi8_epi32(Ranks(mask));
  const __m256i loaded = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(values));
  const __m256i moved = _mm256_permutevar8x32_epi32(loaded, ranks);
  return _mm256_castsi256_ps(_mm256_andnot_si256(_mm256_srai_epi32(ranks, 31), moved));
}

template <int kBytes>
PRISM_INLINE inline void ExpandPair(uint32_t mask, const uint8_t* values, Ints* words) {
  Unroll<2>([&](auto strip) PRISM_INLINE {
    const auto first = static_cast<uint8_t>(mask >> 16 * strip), second = static_cast<uint8_t>(mask >> (16 * strip + 8));
    const uint8_t* const middle = values + kBytes * _mm_popcnt_u32(first);
    Ints* const out = words + strip * kLanes;
    if constexpr (kBytes == 2) {
      out[0] = _mm256_set_m128i(Expand16(second, middle), Expand16(first, values));
    } else {
      const __m256 a = Expand32(first, values), b = Expand32(second, middle);
      // Even words are column 0: rows 0, 1, 4, 5 in the lower half, then 2, 3, 6, 7.
      out[0] = _mm256_permute4x64_epi64(_mm256_castps_si256(_mm256_shuffle_ps(a, b, 0x88)), 0xd8);
      out[1] = _mm256_permute4x64_epi64(_mm256_castps_si256(_mm256_shuffle_ps(a, b, 0xdd)), 0xd8);
    }
    values = middle + kBytes * _mm_popcnt_u32(second);
  });
}

#include "bitmap_unpack_panels.inc"

}  // namespace

void BitmapUnpack(const BitmapUnpackArgs& args, int64_t begin, int64_t end) { Run(args, begin, end); }

}  // namespace prism::cpu::avx2
PRISM_TARGET_END
#endif
