#include "dual_shift_dequantize.h"
#include "isa.h"

#if PRISM_X86
#include <immintrin.h>

#include <cstring>

#include "transpose_avx2.h"

PRISM_TARGET_BEGIN(PRISM_TARGET_AVX2)
namespace prism::cpu::avx2 {
namespace {

constexpr int kLanes = 8;
using Floats = __m256;

PRISM_INLINE inline Ints LoadInts(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
PRISM_INLINE inline Ints AsInts(Floats v) { return _mm256_castps_si256(v); }
PRISM_INLINE inline Floats Broadcast(float value) { return _mm256_set1_ps(value); }
PRISM_INLINE inline Floats Multiply(Floats a, Floats b) { return _mm256_mul_ps(a, b); }

template <int kBits>
PRISM_INLINE inline Ints ShiftRight(Ints v) {
  if constexpr (kBits == 0) return v;
  if constexpr (kBits != 0) return _mm256_srli_epi32(v, kBits);
}
template <int kBits>
PRISM_INLINE inline Ints ShiftLeft(Ints v) {
  return _mm256_slli_epi32(v, kBits);
}
PRISM_INLINE inline Ints MergeBits(int mask, Ints high, Ints low) {
  const Ints chosen = _mm256_set1_epi8(static_cast<char>(mask));
  return _mm256_or_si256(_mm256_and_si256(chosen, high), _mm256_andnot_si256(chosen, low));
}

// A whole number below 2^23 under these bits is 2^23 plus that number.
constexpr int kMagic = 0x4b000000;

inline Floats LoadScales(const uint16_t* packed, int strip) {
  const __m128i words = _mm_loadu_si128(reinterpret_cast<const __m128i*>(packed + strip * kLanes));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(words), 16));
}

// 2^23 + z; up to 4 bits the second strip's zero points are the upper halves of the first one's bytes.
inline Floats LoadZeros(const uint8_t* packed, int bits, int strip) {
  Ints zero;
  if (bits > 4) {
    zero = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(packed + strip * kLanes)));
  } else {
    const Ints both = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(packed)));
    zero = _mm256_and_si256(_mm256_srli_epi32(both, 4 * strip), _mm256_set1_epi32(15));
  }
  return _mm256_castsi256_ps(_mm256_or_si256(zero, _mm256_set1_epi32(kMagic)));
}

struct Uniform {
  explicit Uniform(int bits) : mask(_mm256_set1_epi32((1 << bits) - 1)) {}
  template <int kByte>
  PRISM_INLINE Floats Step(Ints quad, Floats zero) const {
    const Ints code = _mm256_and_si256(ShiftRight<8 * kByte>(quad), mask);
    return _mm256_sub_ps(_mm256_castsi256_ps(_mm256_or_si256(code, _mm256_set1_epi32(kMagic))), zero);
  }
  Ints mask;
};

struct Table {  // two tables of 8 levels, the same one where there are no more, chosen by bit 3 of a code
  explicit Table(Codebook codebook)
      : low(_mm256_loadu_ps(CodebookLevels(codebook))),
        high(_mm256_loadu_ps(CodebookLevels(codebook) + CodebookSize(codebook) - 8)) {}
  template <int kByte>
  PRISM_INLINE Floats Step(Ints quad, Floats) const {
    const Ints index = ShiftRight<8 * kByte>(quad);
    const Floats choose = _mm256_castsi256_ps(_mm256_slli_epi32(index, 28));
    return _mm256_blendv_ps(_mm256_permutevar8x32_ps(low, index), _mm256_permutevar8x32_ps(high, index), choose);
  }
  Floats low, high;
};

// bfloat16: one is added to the upper half where the lower one is above a half, or just a half and the upper one odd.
// Results are never NaN, because scales are finite.
template <DType kDType>
PRISM_INLINE inline Ints Pair(Floats low, Floats high) {
  if constexpr (kDType == DType::kFloat16) {
    const Ints words = _mm256_cvtepu16_epi32(_mm256_cvtps_ph(high, _MM_FROUND_TO_NEAREST_INT));
    return _mm256_or_si256(_mm256_cvtepu16_epi32(_mm256_cvtps_ph(low, _MM_FROUND_TO_NEAREST_INT)),
                           _mm256_slli_epi32(words, 16));
  } else {
    const Ints first = AsInts(low), second = AsInts(high);
    const Ints upper = _mm256_blend_epi16(_mm256_srli_epi32(first, 16), second, 0xaa);
    const Ints lower = _mm256_blend_epi16(first, _mm256_slli_epi32(second, 16), 0xaa);
    const Ints odd = _mm256_and_si256(upper, _mm256_set1_epi16(1));
    // Unsigned lower > 0x8000 - odd, as a comparison of signed numbers 0x8000 less.
    const Ints above = _mm256_xor_si256(lower, _mm256_set1_epi16(-0x8000));
    const Ints up = _mm256_cmpgt_epi16(above, _mm256_sub_epi16(_mm256_setzero_si256(), odd));
    return _mm256_sub_epi16(upper, up);
  }
}

#include "dual_shift_dequantize_panels.inc"

}  // namespace

void DualShiftDequantize(const DualShiftDequantizeArgs& args, int64_t begin, int64_t end) { Run(args, begin, end); }

}  // namespace prism::cpu::avx2
PRISM_TARGET_END
#endif
