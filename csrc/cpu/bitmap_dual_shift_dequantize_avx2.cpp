// Rows are decoded to float32, multiplied by the column scales and rounded 8 columns at a time.
#include "bitmap_dual_shift_dequantize.h"
#include "isa.h"

#if PRISM_X86
#include <immintrin.h>

#include "bitmap_dual_shift_avx2.h"

PRISM_TARGET_BEGIN(PRISM_TARGET_AVX2)
namespace prism::cpu::avx2 {
namespace {

constexpr int kRound = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;

// Round to nearest even; NaN (scales may be infinite) stays a NaN.
__m128i ToBFloat16(__m256 values) {
  const __m256i bits = _mm256_castps_si256(values);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i half_up = _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff));
  const __m256i rounded = _mm256_srli_epi32(_mm256_add_epi32(bits, half_up), 16);
  const __m256i quiet = _mm256_or_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(0x40));
  const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(values, values, _CMP_UNORD_Q));
  const __m256i words = _mm256_blendv_epi8(rounded, quiet, nan);
  return _mm_packus_epi32(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
}

void Store(__m256 values, void* out, DType dtype) {
  switch (dtype) {
    case DType::kFloat32: _mm256_storeu_ps(static_cast<float*>(out), values); break;
    case DType::kFloat16: _mm_storeu_si128(static_cast<__m128i*>(out), _mm256_cvtps_ph(values, kRound)); break;
    default: _mm_storeu_si128(static_cast<__m128i*>(out), ToBFloat16(values)); break;
  }
}

}  // namespace

void BitmapDualShiftDequantize(const BitmapDualShift& w, const uint16_t* column_scale, int64_t row_begin,
                               int64_t row_end, DType dtype, void* out) {
  RowDecoder decoder(w);
  const int64_t bytes = DTypeBytes(dtype), whole = w.k / 8 * 8;
  std::vector<float> weight(static_cast<size_t>(NumBlocks(w.k) * kBlock)), columns(weight.size());
  for (int64_t j = 0; j < w.k; ++j) columns[j] = BFloat16ToFloat(column_scale[j]);
  for (int64_t row = row_begin; row < row_end; ++row) {
    decoder.Decode(row, weight.data());
    uint8_t* row_out = static_cast<uint8_t*>(out) + row * w.k * bytes;
    for (int64_t j = 0; j < w.k; j += 8) {
      const __m256 scaled = _mm256_mul_ps(_mm256_loadu_ps(weight.data() + j), _mm256_loadu_ps(columns.data() + j));
      if (j < whole) {
        Store(scaled, row_out + j * bytes, dtype);
      } else {
        uint8_t tail[32];
        Store(scaled, tail, dtype);
        std::memcpy(row_out + j * bytes, tail, static_cast<size_t>((w.k - j) * bytes));
      }
    }
  }
}

}  // namespace prism::cpu::avx2
PRISM_TARGET_END
#endif
