#include <cstring>
#include <limits>
#include <type_traits>
#include <vector>

#include "isa.h"
#include "sinkhorn.h"

#if PRISM_X86
#include <immintrin.h>

PRISM_TARGET_BEGIN(PRISM_TARGET_AVX512)
namespace prism::cpu::avx512 {

namespace {

constexpr int kLanes = 16;
constexpr int kRows = 8;
using Lanes = __m512;

inline Lanes LoadAll(const float* from) { return _mm512_loadu_ps(from); }
inline Lanes LoadAll(const uint16_t* from) {
  const __m256i words = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(words), 16));
}

inline __mmask16 Kept(const uint8_t* bitmap, int64_t j) {
  __mmask16 kept;
  std::memcpy(&kept, bitmap + (j >> 3), sizeof kept);
  return kept;
}
inline Lanes LoadKept(const float* from, const uint8_t* bitmap, int64_t j) {
  return _mm512_maskz_loadu_ps(Kept(bitmap, j), from);
}
inline Lanes LoadKept(const uint16_t* from, const uint8_t* bitmap, int64_t j) {
  return _mm512_maskz_mov_ps(Kept(bitmap, j), LoadAll(from));
}

constexpr int kMaskBytes = 64;
inline void PackMask(const uint8_t* mask, uint8_t* bitmap) {
  const __m512i bytes = _mm512_loadu_si512(mask);
  const __mmask64 bits = _mm512_test_epi8_mask(bytes, bytes);
  std::memcpy(bitmap, &bits, sizeof bits);
}

inline double Total(Lanes lanes) {
  // The form with a mask, because gcc 12 warns about the undefined operand inside its plain one.
  const __m256 quarters =
      _mm256_add_ps(_mm512_maskz_extractf32x8_ps(0xff, lanes, 0), _mm512_maskz_extractf32x8_ps(0xff, lanes, 1));
  __m128 half = _mm_add_ps(_mm256_castps256_ps128(quarters), _mm256_extractf128_ps(quarters, 1));
  half = _mm_add_ps(half, _mm_movehl_ps(half, half));
  return static_cast<double>(_mm_cvtss_f32(_mm_add_ss(half, _mm_movehdup_ps(half))));
}

}  // namespace
#include "sinkhorn_kernels.inc"

}  // namespace prism::cpu::avx512
PRISM_TARGET_END
#endif
