#include "../../cpu/nm_mask.h"

#include "../common.h"

namespace prism {

Tensor NmMaskCpu(const Tensor& scores, int64_t n_keep, int64_t m) {
  CheckTensor(scores, ScalarType::Float, "nm_mask", "scores");
  STD_TORCH_CHECK(scores.dim() == 2 && m >= 1 && n_keep >= 0 && n_keep <= m, "nm_mask: needs [n, k] scores and 0 <= n_keep <= m");
  const int64_t n = scores.size(0), k = scores.size(1);
  Tensor mask = torch::stable::new_empty(scores, {n, k}, ScalarType::Bool);
  const float* in = ConstData<float>(scores);
  bool* out = MutableData<bool>(mask);
  const cpu::NmMaskFn kernel = cpu::PickNmMask();
  torch::stable::parallel_for(0, n, 16, [&](int64_t begin, int64_t end) {
    kernel(in + begin * k, end - begin, k, n_keep, m, out + begin * k);
  });
  return mask;
}

}  // namespace prism

STABLE_TORCH_LIBRARY_IMPL(prism, CPU, m) { m.impl("nm_mask", TORCH_BOX(&prism::NmMaskCpu)); }
