#include "dual_shift_dequantize.h"
#include "isa.h"

#if PRISM_X86
#include <immintrin.h>

#include "transpose_avx512.h"

PRISM_TARGET_BEGIN(PRISM_TARGET_AVX512)
namespace prism::cpu::avx512 {
namespace {

constexpr int kLanes = 16;
using Floats = __m512;

PRISM_INLINE inline Ints LoadInts(const void* p) { return _mm512_loadu_si512(p); }
PRISM_INLINE inline Ints AsInts(Floats v) { return _mm512_castps_si512(v); }
PRISM_INLINE inline Floats Broadcast(float value) { return _mm512_set1_ps(value); }
PRISM_INLINE inline Floats Multiply(Floats a, Floats b) { return _mm512_mul_ps(a, b); }

template <int kBits>
PRISM_INLINE inline Ints ShiftRight(Ints v) {
  if constexpr (kBits == 0) return v;
  if constexpr (kBits != 0) return _mm512_srli_epi32(v, kBits);
}
template <int kBits>
PRISM_INLINE inline Ints ShiftLeft(Ints v) {
  return _mm512_slli_epi32(v, kBits);
}
PRISM_INLINE inline Ints MergeBits(int mask, Ints high, Ints low) {
  return _mm512_ternarylogic_epi32(_mm512_set1_epi8(static_cast<char>(mask)), high, low, 0xca);
}

// A whole number below 2^23 under these bits is 2^23 plus that number.
constexpr int kMagic = 0x4b000000;

// (gcc 12 warns about its own unmasked conversion here.)
inline Floats LoadScales(const uint16_t* packed, int) {
  const __m256i words = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(packed));
  return _mm512_castsi512_ps(_mm512_maskz_slli_epi32(0xffff, _mm512_maskz_cvtepu16_epi32(0xffff, words), 16));
}

// 2^23 + z
inline Floats LoadZeros(const uint8_t* packed, int bits, int) {
  __m128i bytes;
  if (bits > 4) {
    bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(packed));
  } else {
    const __m128i both = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(packed));
    bytes = _mm_and_si128(_mm_unpacklo_epi64(both, _mm_srli_epi16(both, 4)), _mm_set1_epi8(15));
  }
  return _mm512_castsi512_ps(_mm512_or_si512(_mm512_cvtepu8_epi32(bytes), _mm512_set1_epi32(kMagic)));
}

struct Uniform {
  explicit Uniform(int bits) : mask(_mm512_set1_epi32((1 << bits) - 1)) {}
  template <int kByte>
  PRISM_INLINE Floats Step(Ints quad, Floats zero) const {
    const Ints code = _mm512_ternarylogic_epi32(ShiftRight<8 * kByte>(quad), mask, _mm512_set1_epi32(kMagic), 0xea);
    return _mm512_sub_ps(_mm512_castsi512_ps(code), zero);
  }
  Ints mask;
};

struct Table {
  explicit Table(Codebook codebook) {
    float values[16];  // the index has 4 bits, of which the upper one means nothing where there are 8 levels
    for (int i = 0; i < 16; ++i) values[i] = CodebookLevels(codebook)[i % CodebookSize(codebook)];
    levels = _mm512_loadu_ps(values);
  }
  template <int kByte>
  PRISM_INLINE Floats Step(Ints quad, Floats) const {
    return _mm512_permutexvar_ps(ShiftRight<8 * kByte>(quad), levels);
  }
  Floats levels;
};

// bfloat16: one is added to the upper half where the lower one is above a half, or just a half and the upper one odd.
// Results are never NaN, because scales are finite.
template <DType kDType>
PRISM_INLINE inline Ints Pair(Floats low, Floats high) {
  if constexpr (kDType == DType::kFloat16) {
    const Ints words = _mm512_cvtepu16_epi32(_mm512_cvtps_ph(high, _MM_FROUND_TO_NEAREST_INT));
    return _mm512_or_si512(_mm512_cvtepu16_epi32(_mm512_cvtps_ph(low, _MM_FROUND_TO_NEAREST_INT)),
                           _mm512_slli_epi32(words, 16));
  } else {
    constexpr __mmask32 kOdd = 0xaaaaaaaau;
    const Ints first = AsInts(low), second = AsInts(high);
    const Ints upper = _mm512_mask_blend_epi16(kOdd, _mm512_srli_epi32(first, 16), second);
    const Ints lower = _mm512_mask_blend_epi16(kOdd, first, _mm512_slli_epi32(second, 16));
    const Ints odd = _mm512_and_si512(upper, _mm512_set1_epi16(1));
    const __mmask32 up = _mm512_cmpgt_epu16_mask(lower, _mm512_sub_epi16(_mm512_set1_epi16(-0x8000), odd));
    return _mm512_mask_sub_epi16(upper, up, upper, _mm512_set1_epi16(-1));
  }
}

#include "dual_shift_dequantize_panels.inc"

}  // namespace

void DualShiftDequantize(const DualShiftDequantizeArgs& args, int64_t begin, int64_t end) { Run(args, begin, end); }

}  // namespace prism::cpu::avx512
PRISM_TARGET_END
#endif
