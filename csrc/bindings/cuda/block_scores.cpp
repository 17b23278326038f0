#include "../../cuda/block_scores.cuh"

#include "../../common/panels.h"
#include "../common.h"
#include "common.h"

namespace prism {

Tensor BlockScoresCuda(const Tensor& scores, std::optional<Tensor> mask) {
  CheckTensor(scores, ScalarType::Float, "block_scores", "scores");
  STD_TORCH_CHECK(scores.dim() == 2, "block_scores: scores must have 2 dimensions");
  const int64_t n = scores.size(0), k = scores.size(1);
  if (mask.has_value()) {
    CheckTensor(*mask, ScalarType::Bool, "block_scores", "mask");
    CheckNumel(*mask, n * k, "block_scores", "mask");
    STD_TORCH_CHECK(mask->get_device_index() == scores.get_device_index(), "block_scores: mask must be on the scores' device");
  }
  const CurrentStream current(scores);
  Tensor sums = torch::stable::new_empty(scores, {NumPanels(n), CeilDiv(k, 16)});
  const bool* kept = mask.has_value() ? ConstData<bool>(*mask) : nullptr;
  CheckLaunch(cuda::BlockScores(ConstData<float>(scores), kept, n, k, MutableData<float>(sums), current.stream), "block_scores");
  return sums;
}

}  // namespace prism

STABLE_TORCH_LIBRARY_IMPL(prism, CUDA, m) { m.impl("block_scores", TORCH_BOX(&prism::BlockScoresCuda)); }
