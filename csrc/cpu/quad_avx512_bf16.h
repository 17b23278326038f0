// AVX512-BF16 arithmetic for linears over quads: codes become bfloat16 weights, two columns per dot product.
#pragma once
#include "quad_avx512.h"

#if PRISM_X86
PRISM_TARGET_BEGIN(PRISM_TARGET_AVX512_BF16)
namespace prism::cpu::avx512_bf16 {

using namespace avx512;  // NOLINT: the same registers, loads and sources

struct BFloat16 : FloatSums {
  static constexpr int kParts = 2;
  using Weights = Ints;
  static PRISM_INLINE Floats Dot(Floats sum, Ints weights, const uint32_t* x) {
    return _mm512_dpbf16_ps(sum, (__m512bh)weights, (__m512bh)_mm512_set1_epi32(static_cast<int>(*x)));
  }
  // gcc does not fold the broadcast into the instruction.
  static PRISM_INLINE Floats DotOnce(Floats sum, Ints weights, const uint32_t* x) {
    asm("vdpbf16ps %2%{1to16%}, %1, %0" : "+v"(sum) : "v"(weights), "m"(*x));
    return sum;
  }
  using Zero = Ints;
};

// Codes of up to 5 bits: a look-up by the low 5 bits of every 16-bit word, which needs no masking. Sums begin with -z times
// the sum of x; what that costs in float32 does not show in bfloat16.
struct BFloat16Table : BFloat16 {
  explicit BFloat16Table(const QuadGrid& grid) {
    alignas(64) uint16_t values[32];
    const float* levels = CodebookLevels(grid.codebook);
    const int mask = (1 << grid.bits) - 1;
    for (int i = 0; i < 32; ++i) {
      values[i] = FloatToBFloat16(levels != nullptr ? levels[i & mask] : static_cast<float>(i & mask));
    }
    table = _mm512_load_si512(values);
  }
  static PRISM_INLINE Ints Prepare(Ints zero) { return zero; }
  static PRISM_INLINE Floats Start(Ints zero, const uint32_t* sum) {
    return _mm512_mul_ps(_mm512_cvtepi32_ps(zero), _mm512_set1_ps(-AsFloat(sum)));
  }
  template <int kPart>
  PRISM_INLINE Ints Decode(Ints quad, Ints) const {
    return _mm512_permutexvar_epi16(kPart == 0 ? quad : _mm512_srli_epi16(quad, 8), table);
  }
  Ints table;
};

// Codes of up to 4 bits minus their zero point: 5-bit two's complement looks them up.
struct BFloat16SignedTable : BFloat16 {
  explicit BFloat16SignedTable(const QuadGrid& grid) : mask(_mm512_set1_epi8(static_cast<char>((1 << grid.bits) - 1))) {
    alignas(64) uint16_t values[32];
    const float* levels = CodebookLevels(grid.codebook);
    const int size = CodebookSize(grid.codebook);
    for (int i = 0; i < 32; ++i) {
      values[i] = FloatToBFloat16(i < size ? levels[i] : static_cast<float>(i < 16 ? i : i - 32));
    }
    table = _mm512_load_si512(values);
  }
  static PRISM_INLINE Ints Prepare(Ints zero) { return _mm512_mullo_epi32(zero, _mm512_set1_epi32(0x01010101)); }
  template <int kPart>
  PRISM_INLINE Ints Decode(Ints quad, Ints zero) const {
    const Ints steps = _mm512_sub_epi8(_mm512_and_si512(quad, mask), zero);
    return _mm512_permutexvar_epi16(kPart == 0 ? steps : _mm512_srli_epi16(steps, 8), table);
  }
  Ints mask, table;
};

// Wider codes: integers up to 256 are exact in bfloat16, the upper half of their float32.
struct BFloat16Convert : BFloat16 {
  explicit BFloat16Convert(const QuadGrid& grid) : mask(_mm512_set1_epi32((1 << grid.bits) - 1)) {}
  static PRISM_INLINE Ints Prepare(Ints zero) { return zero; }
  template <int kPart>
  PRISM_INLINE Ints Decode(Ints quad, Ints zero) const {
    const Ints first = _mm512_sub_epi32(_mm512_and_si512(_mm512_srli_epi32(quad, 8 * kPart), mask), zero);
    const Ints second = _mm512_sub_epi32(_mm512_and_si512(_mm512_srli_epi32(quad, 16 + 8 * kPart), mask), zero);
    return _mm512_or_si512(_mm512_srli_epi32(_mm512_castps_si512(_mm512_cvtepi32_ps(first)), 16),
                           _mm512_castps_si512(_mm512_cvtepi32_ps(second)));
  }
  Ints mask;
};

}  // namespace prism::cpu::avx512_bf16
PRISM_TARGET_END
#endif
