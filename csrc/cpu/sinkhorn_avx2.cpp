#include <cstring>
#include <limits>
#include <type_traits>
#include <vector>

#include "isa.h"
#include "sinkhorn.h"

#if PRISM_X86
#include <immintrin.h>

PRISM_TARGET_BEGIN(PRISM_TARGET_AVX2)
namespace prism::cpu::avx2 {

namespace {

constexpr int kLanes = 8;
constexpr int kRows = 4;
using Lanes = __m256;

inline Lanes LoadAll(const float* from) { return _mm256_loadu_ps(from); }
inline Lanes LoadAll(const uint16_t* from) {
  const __m128i words = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(words), 16));
}

template <class T>
inline Lanes LoadKept(const T* from, const uint8_t* bitmap, int64_t j) {
  const __m256i bit = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
  const __m256i bits = _mm256_and_si256(_mm256_set1_epi8(static_cast<char>(bitmap[j >> 3])), bit);
  return _mm256_and_ps(LoadAll(from), _mm256_castsi256_ps(_mm256_cmpeq_epi32(bits, bit)));
}

constexpr int kMaskBytes = 32;
inline void PackMask(const uint8_t* mask, uint8_t* bitmap) {
  const __m256i bytes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(mask));
  const int bits = _mm256_movemask_epi8(_mm256_slli_epi16(bytes, 7));
  std::memcpy(bitmap, &bits, sizeof bits);
}

inline double Total(Lanes lanes) {
  __m128 half = _mm_add_ps(_mm256_castps256_ps128(lanes), _mm256_extractf128_ps(lanes, 1));
  half = _mm_add_ps(half, _mm_movehl_ps(half, half));
  return static_cast<double>(_mm_cvtss_f32(_mm_add_ss(half, _mm_movehdup_ps(half))));
}

}  // namespace
#include "sinkhorn_kernels.inc"

}  // namespace prism::cpu::avx2
PRISM_TARGET_END
#endif
