// Group scales and zero points of one row as 32-bit values; included by the AVX-512 kernels only.
#pragma once
#include "codes_avx512.h"
#include "dual_shift_linear.h"

#if PRISM_X86
PRISM_TARGET_BEGIN(PRISM_TARGET_AVX512)
namespace prism::cpu::avx512 {

// How a kernel adds a zero point z to packed codes: (base - z) * repeat, one 32-bit value.
struct MovedZero {
  int base;
  int repeat;  // 1: once per 32 bits; 0x00010001: per 16 bits; 0x01010101: per byte
  __m512 operator()(__m512i zero, __m512) const {
    const __m512i moved = _mm512_sub_epi32(_mm512_set1_epi32(base), zero);
    return _mm512_castsi512_ps(_mm512_mullo_epi32(moved, _mm512_set1_epi32(repeat)));
  }
};

// -z * s, the factor of the sum of x over a group.
struct SummedZero {
  __m512 operator()(__m512i zero, __m512 scale) const {
    return _mm512_fnmadd_ps(_mm512_cvtepi32_ps(zero), scale, _mm512_setzero_ps());
  }
};

// scales[g] and zeros[g] = encode(z, s) for every group g of the row; `unpacker` is that of the codes' width.
template <class Encode>
static inline void DecodeGrid(const DualShiftLinearArgs& a, int64_t row, const Unpacker& unpacker, const Encode& encode,
                              float* scales, float* zeros) {
  const uint16_t* packed_scales = a.scale + row * a.groups;
  for (int64_t g = 0; g < a.groups; g += 16) {
    _mm512_mask_storeu_ps(scales + g, LowMask16(a.groups - g), LoadBFloat16(packed_scales + g, a.groups - g));
  }
  if (a.codebook != Codebook::kUniform) return;
  const uint8_t* packed_zeros = a.zero + row * a.zero_bytes;
  int64_t available = a.zero_bytes;
  for (int64_t g = 0; g < a.groups; g += 64) {
    alignas(64) uint8_t bytes[64];
    _mm512_store_si512(bytes, unpacker.Load(packed_zeros, available));
    packed_zeros += unpacker.BlockBytes();
    available -= unpacker.BlockBytes();
    for (int64_t i = 0; i < 64 && g + i < a.groups; i += 16) {
      const __m512i zero = _mm512_cvtepu8_epi32(_mm_load_si128(reinterpret_cast<const __m128i*>(bytes + i)));
      const __mmask16 present = LowMask16(a.groups - g - i);
      const __m512 scale = _mm512_maskz_loadu_ps(present, scales + g + i);
      _mm512_mask_storeu_ps(zeros + g + i, present, encode(zero, scale));
    }
  }
}

}  // namespace prism::cpu::avx512
PRISM_TARGET_END
#endif
