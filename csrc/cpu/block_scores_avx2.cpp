#include <algorithm>

#include "block_scores.h"
#include "isa.h"
#include "tiered.h"
#include "unroll.h"

#if PRISM_X86
PRISM_TARGET_BEGIN(PRISM_TARGET_AVX2)
namespace prism::cpu::avx2 {

#include "block_scores_panels.inc"

}  // namespace prism::cpu::avx2
PRISM_TARGET_END
#endif
