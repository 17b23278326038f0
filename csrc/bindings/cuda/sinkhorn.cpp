#include "../../cuda/sinkhorn.cuh"

#include "../common.h"
#include "common.h"

namespace prism {
namespace {

cuda::SinkhornVariant VariantOf(const std::string& name) {
  if (name == "sinq") return cuda::SinkhornVariant::kSinq;
  if (name == "prism") return cuda::SinkhornVariant::kPrism;
  STD_TORCH_CHECK(name == "rms", "sinkhorn: variant must be sinq, prism or rms, got ", name);
  return cuda::SinkhornVariant::kRms;
}

}  // namespace

std::tuple<Tensor, Tensor> SinkhornCuda(const Tensor& weight, const std::optional<Tensor>& mask, std::string variant,
                                        int64_t iterations) {
  const DType dtype = FloatDType(weight, "sinkhorn", "weight");
  STD_TORCH_CHECK(dtype != DType::kFloat16, "sinkhorn: weight must be float32 or bfloat16");
  STD_TORCH_CHECK(weight.dim() == 3, "sinkhorn: weight must have 3 dimensions");
  if (mask.has_value()) {
    CheckTensor(*mask, ScalarType::Bool, "sinkhorn", "mask");
    CheckNumel(*mask, weight.numel(), "sinkhorn", "mask");
    STD_TORCH_CHECK(mask->get_device_index() == weight.get_device_index(), "sinkhorn: mask must be on the weight's device");
  }
  const int64_t batch = weight.size(0), n = weight.size(1), k = weight.size(2);
  const CurrentStream current(weight);
  Tensor column = torch::stable::new_empty(weight, {batch, k}, ScalarType::Float);
  Tensor row = torch::stable::new_empty(weight, {batch, n}, ScalarType::Float);
  if (n == 0 || k == 0) {
    torch::stable::fill_(column, 1.0);
    torch::stable::fill_(row, 1.0);
    return {column, row};
  }
  const int64_t bytes = cuda::SinkhornWorkspace(dtype, mask.has_value(), batch, n, k);
  Tensor workspace = torch::stable::new_empty(weight, {bytes}, ScalarType::Byte);
  const cuda::SinkhornArgs args = {weight.const_data_ptr(), dtype, mask.has_value() ? ConstData<bool>(*mask) : nullptr,
                                   batch, n, k, VariantOf(variant), iterations, MutableData<float>(column),
                                   MutableData<float>(row), MutableData<unsigned char>(workspace)};
  CheckLaunch(cuda::Sinkhorn(args, current.stream), "sinkhorn");
  return {column, row};
}

}  // namespace prism

STABLE_TORCH_LIBRARY_IMPL(prism, CUDA, m) { m.impl("sinkhorn", TORCH_BOX(&prism::SinkhornCuda)); }
