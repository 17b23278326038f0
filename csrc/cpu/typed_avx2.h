// Up to 8 values of any storage dtype to and from float32 lanes; included by the AVX2 kernels only.
#pragma once
#include "../common/dtype.h"
#include "isa.h"

#if PRISM_X86
#include <immintrin.h>

#include <cstring>

PRISM_TARGET_BEGIN(PRISM_TARGET_AVX2)
namespace prism::cpu::avx2 {

// 8 bfloat16 values as float32; reads `count` of them if fewer than 8, the others are 0.
static inline __m256 LoadBFloat16(const uint16_t* values, int64_t count) {
  uint16_t copy[8] = {};
  if (count < 8) {
    std::memcpy(copy, values, static_cast<size_t>(count) * 2);
    values = copy;
  }
  const __m128i words = _mm_loadu_si128(reinterpret_cast<const __m128i*>(values));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(words), 16));
}

// All bits set in the lanes below `count`, which may exceed 8.
static inline __m256i LowLanes(int64_t count) {
  const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count < 8 ? count : 8)), lane);
}

// Values [index, index + count) of data, the lanes beyond are 0; touches no memory beyond.
static inline __m256 LoadTyped(const void* data, DType dtype, int64_t index, int64_t count) {
  if (dtype == DType::kFloat32) return _mm256_maskload_ps(static_cast<const float*>(data) + index, LowLanes(count));
  const uint16_t* halves = static_cast<const uint16_t*>(data) + index;
  if (dtype == DType::kBFloat16) return LoadBFloat16(halves, count);
  uint16_t copy[8] = {};
  if (count < 8) {
    std::memcpy(copy, halves, static_cast<size_t>(count) * 2);
    halves = copy;
  }
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(halves)));
}

// Round to nearest even; NaN becomes the quiet NaN.
static inline __m128i ToBFloat16(__m256 values) {
  const __m256i bits = _mm256_castps_si256(values);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i rounded = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd);
  const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x00400000));
  const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(values, values, _CMP_UNORD_Q));
  const __m256i upper = _mm256_srli_epi32(_mm256_blendv_epi8(rounded, quiet, nan), 16);
  return _mm_packus_epi32(_mm256_castsi256_si128(upper), _mm256_extracti128_si256(upper, 1));
}

// Stores lanes [0, count) at data[index]; touches no memory beyond.
static inline void StoreTyped(__m256 values, void* data, DType dtype, int64_t index, int64_t count) {
  if (dtype == DType::kFloat32) return _mm256_maskstore_ps(static_cast<float*>(data) + index, LowLanes(count), values);
  const __m128i halves =
      dtype == DType::kBFloat16 ? ToBFloat16(values) : _mm256_cvtps_ph(values, _MM_FROUND_TO_NEAREST_INT);
  uint16_t* out = static_cast<uint16_t*>(data) + index;
  if (count >= 8) return _mm_storeu_si128(reinterpret_cast<__m128i*>(out), halves);
  alignas(16) uint16_t copy[8];
  _mm_store_si128(reinterpret_cast<__m128i*>(copy), halves);
  std::memcpy(out, copy, static_cast<size_t>(count) * 2);
}

}  // namespace prism::cpu::avx2
PRISM_TARGET_END
#endif
