// Up to 16 values of any storage dtype to and from float32 lanes; included by the AVX-512 kernels only.
#pragma once
#include "../common/dtype.h"
#include "isa.h"

#if PRISM_X86
#include <immintrin.h>

PRISM_TARGET_BEGIN(PRISM_TARGET_AVX512)
namespace prism::cpu::avx512 {

// Ones in the `count` lowest bits; count may be negative or exceed 64.
static inline __mmask64 LowMask64(int64_t count) {
  return count >= 64 ? ~0ull : count <= 0 ? 0ull : (1ull << count) - 1;
}
static inline __mmask16 LowMask16(int64_t count) {
  return static_cast<__mmask16>(count >= 16 ? 0xffffu : count <= 0 ? 0u : (1u << count) - 1);
}

// 16 bfloat16 values as float32; reads `count` of them, the others are 0.
static inline __m512 LoadBFloat16(const uint16_t* values, int64_t count) {
  const __m256i words = _mm256_maskz_loadu_epi16(LowMask16(count), values);
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(words), 16));
}

// The sum of the lanes, always in the same order. (gcc 12 warns about its own _mm512_reduce_add_ps.)
static inline float ReduceAdd(__m512 v) {
  const __m256 half = _mm256_add_ps(_mm512_maskz_extractf32x8_ps(0xff, v, 0), _mm512_maskz_extractf32x8_ps(0xff, v, 1));
  __m128 sum = _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
  sum = _mm_add_ps(sum, _mm_movehl_ps(sum, sum));
  return _mm_cvtss_f32(_mm_add_ss(sum, _mm_movehdup_ps(sum)));
}

// Values [index, index + count) of data, the lanes beyond are 0; touches no memory beyond.
static inline __m512 LoadTyped(const void* data, DType dtype, int64_t index, int64_t count) {
  const __mmask16 mask = LowMask16(count);
  if (dtype == DType::kFloat32) return _mm512_maskz_loadu_ps(mask, static_cast<const float*>(data) + index);
  const uint16_t* halves = static_cast<const uint16_t*>(data) + index;
  if (dtype == DType::kBFloat16) return LoadBFloat16(halves, count);
  return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, halves));
}

// Round to nearest even; NaN becomes the quiet NaN.
static inline __m256i ToBFloat16(__m512 values) {
  const __m512i bits = _mm512_castps_si512(values);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  __m512i rounded = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
  const __mmask16 nan = _mm512_cmp_ps_mask(values, values, _CMP_UNORD_Q);
  rounded = _mm512_mask_or_epi32(rounded, nan, bits, _mm512_set1_epi32(0x00400000));
  return _mm512_cvtepi32_epi16(_mm512_srli_epi32(rounded, 16));
}

// Stores lanes [0, count) at data[index]; touches no memory beyond.
static inline void StoreTyped(__m512 values, void* data, DType dtype, int64_t index, int64_t count) {
  const __mmask16 mask = LowMask16(count);
  if (dtype == DType::kFloat32) return _mm512_mask_storeu_ps(static_cast<float*>(data) + index, mask, values);
  const __m256i halves =
      dtype == DType::kBFloat16 ? ToBFloat16(values) : _mm512_cvtps_ph(values, _MM_FROUND_TO_NEAREST_INT);
  _mm256_mask_storeu_epi16(static_cast<uint16_t*>(data) + index, mask, halves);
}

}  // namespace prism::cpu::avx512
PRISM_TARGET_END
#endif
