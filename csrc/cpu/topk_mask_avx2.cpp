#include <algorithm>
#include <vector>

#include "../common/dtype.h"
#include "isa.h"
#include "topk_mask.h"

#if PRISM_X86
#include <immintrin.h>

PRISM_TARGET_BEGIN(PRISM_TARGET_AVX2)
namespace prism::cpu::avx2 {

namespace {

// Eight at a time: most runs hold few keys of the bin, and a vector without any costs one branch.
inline int64_t SelectKeys(const uint32_t* keys, int64_t size, int shift, uint32_t prefix, uint32_t* selected) {
  const __m256i wanted = _mm256_set1_epi32(static_cast<int>(prefix));
  int64_t found = 0, i = 0;
  for (; i + 8 <= size; i += 8) {
    const __m256i own = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(keys + i));
    const __m256i equal = _mm256_cmpeq_epi32(_mm256_srli_epi32(own, shift), wanted);
    auto bits = static_cast<uint32_t>(_mm256_movemask_ps(_mm256_castsi256_ps(equal)));
    for (; bits != 0; bits &= bits - 1) selected[found++] = keys[i + _tzcnt_u32(bits)];
  }
  for (; i < size; ++i) {
    if (keys[i] >> shift == prefix) selected[found++] = keys[i];
  }
  return found;
}

}  // namespace
#include "topk_mask_kernels.inc"

}  // namespace prism::cpu::avx2
PRISM_TARGET_END
#endif
