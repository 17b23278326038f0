// Expansion of up to 8 kept values to their places by shuffles that the 8 bits of the mask look up.
#pragma once
#include <array>
#include <cstdint>

#include "isa.h"

#if PRISM_X86
#include <immintrin.h>

namespace prism::cpu::avx2 {

// By the mask of 8 places, byte shuffles of 8 values of kBytes: each kept place takes the next value, a pruned one 0.
template <int kBytes>
constexpr std::array<std::array<uint8_t, 8 * kBytes>, 256> MakeShuffles() {
  std::array<std::array<uint8_t, 8 * kBytes>, 256> shuffles{};
  for (int mask = 0; mask < 256; ++mask) {
    for (int place = 0, rank = 0; place < 8; ++place) {
      const bool kept = mask >> place & 1;
      for (int byte = 0; byte < kBytes; ++byte) {
        shuffles[mask][place * kBytes + byte] = static_cast<uint8_t>(kept ? rank * kBytes + byte : 0x80);
      }
      rank += kept;
    }
  }
  return shuffles;
}

inline constexpr auto kRanks = MakeShuffles<1>();
inline constexpr auto kWordShuffles = MakeShuffles<2>();

PRISM_TARGET_BEGIN(PRISM_TARGET_AVX2)

// Reads 16 bytes.
static inline __m128i ExpandWords(uint8_t mask, const uint8_t* values) {
  const __m128i shuffle = _mm_loadu_si128(reinterpret_cast<const __m128i*>(kWordShuffles[mask].data()));
  return _mm_shuffle_epi8(_mm_loadu_si128(reinterpret_cast<const __m128i*>(values)), shuffle);
}

// Reads 32 bytes.
static inline __m256 ExpandDwords(uint8_t mask, const uint8_t* values) {
  const __m128i ranks = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(kRanks[mask].data()));
  const __m256i index = _mm256_cvtepu8_epi32(ranks);
  const __m256 moved = _mm256_permutevar8x32_ps(_mm256_loadu_ps(reinterpret_cast<const float*>(values)), index);
  return _mm256_blendv_ps(moved, _mm256_setzero_ps(), _mm256_castsi256_ps(_mm256_slli_epi32(index, 24)));
}

PRISM_TARGET_END
}  // namespace prism::cpu::avx2
#endif
