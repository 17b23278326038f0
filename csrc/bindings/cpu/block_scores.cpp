#include "../../cpu/block_scores.h"

#include "../../cpu/tiered.h"
#include "../common.h"

namespace prism {

Tensor BlockScoresCpu(const Tensor& scores, std::optional<Tensor> mask) {
  CheckTensor(scores, ScalarType::Float, "block_scores", "scores");
  STD_TORCH_CHECK(scores.dim() == 2, "block_scores: scores must have 2 dimensions");
  const int64_t n = scores.size(0), k = scores.size(1);
  if (mask.has_value()) {
    CheckTensor(*mask, ScalarType::Bool, "block_scores", "mask");
    CheckNumel(*mask, n * k, "block_scores", "mask");
  }
  Tensor sums = torch::stable::new_empty(scores, {NumPanels(n), cpu::NumTiles(k)});
  const float* in = ConstData<float>(scores);
  const bool* kept = mask.has_value() ? ConstData<bool>(*mask) : nullptr;
  float* out = MutableData<float>(sums);
  const cpu::BlockScoresFn kernel = cpu::PickBlockScores();
  torch::stable::parallel_for(0, NumPanels(n), 1, [&](int64_t begin, int64_t end) { kernel(in, kept, n, k, begin, end, out); });
  return sums;
}

}  // namespace prism

STABLE_TORCH_LIBRARY_IMPL(prism, CPU, m) { m.impl("block_scores", TORCH_BOX(&prism::BlockScoresCpu)); }
