#include "../../cuda/topk_mask.cuh"

#include "../common.h"
#include "common.h"

namespace prism {

Tensor TopkMaskCuda(const Tensor& scores, int64_t keep, std::string scope) {
  CheckTensor(scores, ScalarType::Float, "topk_mask", "scores");
  STD_TORCH_CHECK(scores.dim() == 2, "topk_mask: scores must have 2 dimensions");
  STD_TORCH_CHECK(scope == "row" || scope == "matrix", "topk_mask: scope must be row or matrix, got ", scope);
  const int64_t n = scores.size(0), k = scores.size(1);
  const int64_t size = scope == "row" ? k : n * k;
  STD_TORCH_CHECK(keep >= 0 && keep <= size, "topk_mask: keep must be between 0 and ", size, ", got ", keep);
  const CurrentStream current(scores);
  Tensor mask = torch::stable::new_empty(scores, {n, k}, ScalarType::Bool);
  const float* in = ConstData<float>(scores);
  bool* out = MutableData<bool>(mask);
  if (scope == "row") {
    CheckLaunch(cuda::TopkMaskRows(in, n, k, keep, out, current.stream), "topk_mask");
    return mask;
  }
  Tensor workspace = torch::stable::new_zeros(scores, {cuda::TopkMaskWorkspace(size)}, ScalarType::Byte);
  CheckLaunch(cuda::TopkMaskAll(in, size, keep, out, MutableData<unsigned char>(workspace), current.stream), "topk_mask");
  return mask;
}

}  // namespace prism

STABLE_TORCH_LIBRARY_IMPL(prism, CUDA, m) { m.impl("topk_mask", TORCH_BOX(&prism::TopkMaskCuda)); }
