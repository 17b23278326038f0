#include "block_scores.h"

#include <algorithm>

#include "isa.h"
#include "tiered.h"
#include "unroll.h"

namespace prism::cpu {
namespace generic {

#include "block_scores_panels.inc"

}  // namespace generic

BlockScoresFn PickBlockScores() {
#if PRISM_X86
  return Pick<BlockScoresFn>("block_scores", {generic::BlockScores, avx2::BlockScores, avx512::BlockScores, nullptr});
#else
  return Pick<BlockScoresFn>("block_scores", {generic::BlockScores});
#endif
}

}  // namespace prism::cpu
