#include "dual_shift_dequantize.h"
#include "isa.h"

#if PRISM_X86
#include <immintrin.h>

#include "codes_avx2.h"
#include "typed_avx2.h"

PRISM_TARGET_BEGIN(PRISM_TARGET_AVX2)
namespace prism::cpu::avx2 {
namespace {

constexpr int64_t kLanes = 8;
using Floats = __m256;
Floats LoadFloats(const float* p) { return _mm256_loadu_ps(p); }
Floats Broadcast(float value) { return _mm256_set1_ps(value); }
Floats Multiply(Floats a, Floats b) { return _mm256_mul_ps(a, b); }

__m256i LoadCodes(const uint8_t* codes) {
  return _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(codes)));
}

Floats Steps(const uint8_t* codes, uint8_t zero) {
  return _mm256_cvtepi32_ps(_mm256_sub_epi32(LoadCodes(codes), _mm256_set1_epi32(zero)));
}

class Levels {  // two tables of 8, chosen by bit 3 of a code
 public:
  explicit Levels(Codebook codebook)
      : low_(_mm256_loadu_ps(CodebookLevels(codebook))),
        high_(_mm256_loadu_ps(CodebookLevels(codebook) + CodebookSize(codebook) - 8)) {}
  Floats operator()(const uint8_t* codes) const {
    const __m256i index = LoadCodes(codes);
    const __m256 choose = _mm256_castsi256_ps(_mm256_slli_epi32(index, 28));
    return _mm256_blendv_ps(_mm256_permutevar8x32_ps(low_, index), _mm256_permutevar8x32_ps(high_, index), choose);
  }

 private:
  __m256 low_, high_;
};

#include "dual_shift_dequantize_rows.inc"

}  // namespace

void DualShiftDequantize(const DualShiftDequantizeArgs& args, int64_t begin, int64_t end, uint8_t* scratch) {
  Run(args, begin, end, scratch);
}

}  // namespace prism::cpu::avx2
PRISM_TARGET_END
#endif
