// Blocks are decoded to float32, multiplied by the column scales and rounded 32 columns at a time.
#include "bitmap_dual_shift_dequantize.h"
#include "isa.h"

#if PRISM_X86
#include <immintrin.h>

#include "bitmap_dual_shift_avx512.h"

PRISM_TARGET_BEGIN(PRISM_TARGET_AVX512)
namespace prism::cpu::avx512 {
namespace {

// The upper half of each float32 after rounding to nearest even; NaN (scales may be infinite) stays a NaN.
__m512i RoundToBFloat16(__m512 values) {
  const __m512i bits = _mm512_castps_si512(values);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
  const __mmask16 nan = _mm512_cmp_ps_mask(values, values, _CMP_UNORD_Q);
  return _mm512_mask_or_epi32(rounded, nan, bits, _mm512_set1_epi32(0x400000));
}

// 32 columns of which the first `count` (possibly none) are written.
template <DType kDType>
void Store(__m512 low, __m512 high, int64_t count, void* out, int64_t index) {
  const __mmask32 lanes = static_cast<__mmask32>(LowMask64(std::min<int64_t>(count, 32)));
  if constexpr (kDType == DType::kFloat32) {
    float* data = static_cast<float*>(out) + index;
    _mm512_mask_storeu_ps(data, static_cast<__mmask16>(lanes), low);
    _mm512_mask_storeu_ps(data + 16, static_cast<__mmask16>(lanes >> 16), high);
  } else {
    __m512i words;
    if constexpr (kDType == DType::kFloat16) {
      constexpr int kRound = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
      const __m512i half = _mm512_castsi256_si512(_mm512_cvtps_ph(low, kRound));
      words = _mm512_inserti64x4(half, _mm512_cvtps_ph(high, kRound), 1);
    } else {
      alignas(64) static constexpr uint16_t kOdd[32] = {1,  3,  5,  7,  9,  11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31,
                                                        33, 35, 37, 39, 41, 43, 45, 47, 49, 51, 53, 55, 57, 59, 61, 63};
      words = _mm512_permutex2var_epi16(RoundToBFloat16(low), _mm512_load_si512(kOdd), RoundToBFloat16(high));
    }
    _mm512_mask_storeu_epi16(static_cast<uint16_t*>(out) + index, lanes, words);
  }
}

template <DType kDType>
void Dequantize(const BitmapDualShift& w, const uint16_t* column_scale, int64_t row_begin, int64_t row_end, void* out) {
  std::vector<float> columns(static_cast<size_t>(NumBlocks(w.k) * kBlock));
  for (int64_t j = 0; j < w.k; ++j) columns[j] = BFloat16ToFloat(column_scale[j]);
  RowDecoder decoder(w);
  for (int64_t row = row_begin; row < row_end; ++row) {
    decoder.Decode(row, [&](int64_t j, const Block& block) PRISM_INLINE {
      Unroll<2>([&](auto half) PRISM_INLINE {
        const int64_t first = j + 32 * half;
        const __m512 low = _mm512_mul_ps(block.part[2 * half], _mm512_loadu_ps(columns.data() + first));
        const __m512 high = _mm512_mul_ps(block.part[2 * half + 1], _mm512_loadu_ps(columns.data() + first + 16));
        Store<kDType>(low, high, w.k - first, out, row * w.k + first);
      });
    });
  }
}

}  // namespace

void BitmapDualShiftDequantize(const BitmapDualShift& w, const uint16_t* column_scale, int64_t row_begin,
                               int64_t row_end, DType dtype, void* out) {
  switch (dtype) {
    case DType::kFloat32: return Dequantize<DType::kFloat32>(w, column_scale, row_begin, row_end, out);
    case DType::kFloat16: return Dequantize<DType::kFloat16>(w, column_scale, row_begin, row_end, out);
    default: return Dequantize<DType::kBFloat16>(w, column_scale, row_begin, row_end, out);
  }
}

}  // namespace prism::cpu::avx512
PRISM_TARGET_END
#endif
