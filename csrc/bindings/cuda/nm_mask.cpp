#include "../../cuda/nm_mask.cuh"

#include "../common.h"
#include "common.h"

namespace prism {

Tensor NmMaskCuda(const Tensor& scores, int64_t n_keep, int64_t m) {
  CheckTensor(scores, ScalarType::Float, "nm_mask", "scores");
  STD_TORCH_CHECK(scores.dim() == 2 && m >= 1 && n_keep >= 0 && n_keep <= m, "nm_mask: needs [n, k] scores and 0 <= n_keep <= m");
  const CurrentStream current(scores);
  Tensor mask = torch::stable::new_empty(scores, {scores.size(0), scores.size(1)}, ScalarType::Bool);
  CheckLaunch(cuda::NmMask(ConstData<float>(scores), scores.size(0), scores.size(1), n_keep, m, MutableData<bool>(mask), current.stream), "nm_mask");
  return mask;
}

}  // namespace prism

STABLE_TORCH_LIBRARY_IMPL(prism, CUDA, m) { m.impl("nm_mask", TORCH_BOX(&prism::NmMaskCuda)); }
