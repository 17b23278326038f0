#include "../../cpu/topk_mask.h"

#include "../common.h"

namespace prism {

Tensor TopkMaskCpu(const Tensor& scores, int64_t keep, std::string scope) {
  CheckTensor(scores, ScalarType::Float, "topk_mask", "scores");
  STD_TORCH_CHECK(scores.dim() == 2, "topk_mask: scores must have 2 dimensions");
  STD_TORCH_CHECK(scope == "row" || scope == "matrix", "topk_mask: scope must be row or matrix, got ", scope);
  const int64_t n = scores.size(0), k = scores.size(1);
  const int64_t size = scope == "row" ? k : n * k;
  STD_TORCH_CHECK(keep >= 0 && keep <= size, "topk_mask: keep must be between 0 and ", size, ", got ", keep);
  Tensor mask = torch::stable::new_empty(scores, {n, k}, ScalarType::Bool);
  const float* in = ConstData<float>(scores);
  bool* out = MutableData<bool>(mask);
  using Body = std::function<void(int64_t, int64_t)>;
  const cpu::TopkKernels& kernels = *cpu::PickTopkMask();
  if (scope == "matrix") {
    const auto parallel = [](int64_t count, const Body& body) { torch::stable::parallel_for(0, count, 1, body); };
    cpu::TopkMask(kernels, in, size, keep, parallel, out);
    return mask;
  }
  torch::stable::parallel_for(0, n, 16, [&](int64_t begin, int64_t end) {
    const auto serial = [](int64_t count, const Body& body) { body(0, count); };
    for (int64_t row = begin; row < end; ++row) cpu::TopkMask(kernels, in + row * k, k, keep, serial, out + row * k);
  });
  return mask;
}

}  // namespace prism

STABLE_TORCH_LIBRARY_IMPL(prism, CPU, m) { m.impl("topk_mask", TORCH_BOX(&prism::TopkMaskCpu)); }
