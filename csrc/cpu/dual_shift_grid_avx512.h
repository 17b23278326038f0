// Group scales and zero points of one row as 32-bit values; included by the AVX-512 kernels only.
#pragma once
#include "codes_avx512.h"
#include "dual_shift_linear.h"

#if PRISM_X86
PRISM_TARGET_BEGIN(PRISM_TARGET_AVX512)
namespace prism::cpu::avx512 {

// How a kernel adds a zero point z to packed codes: (base - z) * repeat, one 32-bit value.
struct ZeroEncoding {
  int base;
  int repeat;  // 1: once per 32 bits; 0x00010001: per 16 bits; 0x01010101: per byte
};

// scales[g] and zeros[g] for every group g of the row; `unpacker` is that of the codes' width.
static inline void DecodeGrid(const DualShiftLinearArgs& a, int64_t row, const Unpacker& unpacker, ZeroEncoding encoding,
                              float* scales, int32_t* zeros) {
  const uint16_t* packed_scales = a.scale + row * a.groups;
  for (int64_t g = 0; g < a.groups; g += 16) {
    _mm512_mask_storeu_ps(scales + g, LowMask16(a.groups - g), LoadBFloat16(packed_scales + g, a.groups - g));
  }
  if (a.codebook != Codebook::kUniform) return;
  const __m512i base = _mm512_set1_epi32(encoding.base), repeat = _mm512_set1_epi32(encoding.repeat);
  const uint8_t* packed_zeros = a.zero + row * a.zero_bytes;
  int64_t available = a.zero_bytes;
  for (int64_t g = 0; g < a.groups; g += 64) {
    alignas(64) uint8_t bytes[64];
    _mm512_store_si512(bytes, unpacker.Load(packed_zeros, available));
    packed_zeros += unpacker.BlockBytes();
    available -= unpacker.BlockBytes();
    for (int64_t i = 0; i < 64 && g + i < a.groups; i += 16) {
      const __m512i zero = _mm512_cvtepu8_epi32(_mm_load_si128(reinterpret_cast<const __m128i*>(bytes + i)));
      const __m512i encoded = _mm512_mullo_epi32(_mm512_sub_epi32(base, zero), repeat);
      _mm512_mask_storeu_epi32(zeros + g + i, LowMask16(a.groups - g - i), encoded);
    }
  }
}

}  // namespace prism::cpu::avx512
PRISM_TARGET_END
#endif
