#include "dual_shift_dequantize.h"
#include "isa.h"

#if PRISM_X86
#include <immintrin.h>

#include "codes_avx512.h"
#include "typed_avx512.h"

PRISM_TARGET_BEGIN(PRISM_TARGET_AVX512)
namespace prism::cpu::avx512 {
namespace {

constexpr int64_t kLanes = 16;
using Floats = __m512;
Floats LoadFloats(const float* p) { return _mm512_loadu_ps(p); }
Floats Broadcast(float value) { return _mm512_set1_ps(value); }
Floats Multiply(Floats a, Floats b) { return _mm512_mul_ps(a, b); }

__m512i LoadCodes(const uint8_t* codes) {
  return _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(codes)));
}

Floats Steps(const uint8_t* codes, uint8_t zero) {
  return _mm512_cvtepi32_ps(_mm512_sub_epi32(LoadCodes(codes), _mm512_set1_epi32(zero)));
}

class Levels {
 public:
  explicit Levels(Codebook codebook) {
    float table[16];
    for (int i = 0; i < 16; ++i) table[i] = CodebookLevels(codebook)[i % CodebookSize(codebook)];
    table_ = _mm512_loadu_ps(table);
  }
  Floats operator()(const uint8_t* codes) const { return _mm512_permutexvar_ps(LoadCodes(codes), table_); }

 private:
  __m512 table_;
};

#include "dual_shift_dequantize_rows.inc"

}  // namespace

void DualShiftDequantize(const DualShiftDequantizeArgs& args, int64_t begin, int64_t end, uint8_t* scratch) {
  Run(args, begin, end, scratch);
}

}  // namespace prism::cpu::avx512
PRISM_TARGET_END
#endif
