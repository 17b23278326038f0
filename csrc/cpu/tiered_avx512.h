// What the AVX-512 kernels over tiles share.
#pragma once
#include "isa.h"
#include "tiered_linear.h"

#if PRISM_X86
#include <immintrin.h>

#include "expand_avx512.h"
#include "typed_avx512.h"

PRISM_TARGET_BEGIN(PRISM_TARGET_AVX512)
namespace prism::cpu::avx512 {

constexpr int64_t kPrefetchBytes = 8192;  // ahead in the stream of survivors

// 16 sums plus bias to rows row ... of one token's outputs.
static inline void StoreOutputs(__m512 sums, const TieredLinearArgs& args, int64_t token, int64_t row) {
  const int64_t count = args.n - row;
  if (args.bias != nullptr) sums = _mm512_add_ps(sums, LoadTyped(args.bias, args.dtype, row, count));
  StoreTyped(sums, args.y, args.dtype, token * args.n + row, count);
}

}  // namespace prism::cpu::avx512
PRISM_TARGET_END
#endif
