#include <algorithm>
#include <vector>

#include "../common/dtype.h"
#include "isa.h"
#include "topk_mask.h"

#if PRISM_X86
#include <immintrin.h>

PRISM_TARGET_BEGIN(PRISM_TARGET_AVX512)
namespace prism::cpu::avx512 {

namespace {

inline int64_t SelectKeys(const uint32_t* keys, int64_t size, int shift, uint32_t prefix, uint32_t* selected) {
  const __m512i wanted = _mm512_set1_epi32(static_cast<int>(prefix));
  int64_t found = 0;
  for (int64_t i = 0; i < size; i += 16) {
    const __mmask16 valid = size - i >= 16 ? 0xffff : static_cast<__mmask16>((1u << (size - i)) - 1);
    const __m512i own = _mm512_maskz_loadu_epi32(valid, keys + i);
    const __m512i digits = _mm512_maskz_srli_epi32(valid, own, static_cast<unsigned>(shift));
    const __mmask16 equal = _mm512_mask_cmpeq_epi32_mask(valid, digits, wanted);
    const int count = __builtin_popcount(equal);
    // Compressed in a register: a compressing store is slow on Zen.
    _mm512_mask_storeu_epi32(selected + found, static_cast<__mmask16>((1u << count) - 1),
                             _mm512_maskz_compress_epi32(equal, own));
    found += count;
  }
  return found;
}

}  // namespace
#include "topk_mask_kernels.inc"

}  // namespace prism::cpu::avx512
PRISM_TARGET_END
#endif
