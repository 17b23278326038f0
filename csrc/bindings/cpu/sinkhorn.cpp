#include "../../cpu/sinkhorn.h"

#include "../common.h"

namespace prism {

cpu::SinkhornVariant SinkhornVariantOf(const std::string& name) {
  if (name == "sinq") return cpu::SinkhornVariant::kSinq;
  if (name == "prism") return cpu::SinkhornVariant::kPrism;
  STD_TORCH_CHECK(name == "rms", "sinkhorn: variant must be sinq, prism or rms, got ", name);
  return cpu::SinkhornVariant::kRms;
}

std::tuple<Tensor, Tensor> SinkhornCpu(const Tensor& weight, const std::optional<Tensor>& mask, std::string variant,
                                       int64_t iterations) {
  const DType dtype = FloatDType(weight, "sinkhorn", "weight");
  STD_TORCH_CHECK(dtype != DType::kFloat16, "sinkhorn: weight must be float32 or bfloat16");
  STD_TORCH_CHECK(weight.dim() == 3, "sinkhorn: weight must have 3 dimensions");
  if (mask.has_value()) {
    CheckTensor(*mask, ScalarType::Bool, "sinkhorn", "mask");
    CheckNumel(*mask, weight.numel(), "sinkhorn", "mask");
  }
  const int64_t b = weight.size(0), n = weight.size(1), k = weight.size(2);
  const cpu::SinkhornVariant kind = SinkhornVariantOf(variant);
  Tensor column = torch::stable::new_empty(weight, {b, k}, ScalarType::Float);
  Tensor row = torch::stable::new_empty(weight, {b, n}, ScalarType::Float);
  const uint8_t* values = static_cast<const uint8_t*>(weight.const_data_ptr());
  const uint8_t* kept = mask.has_value() ? ConstData<uint8_t>(*mask) : nullptr;
  float* column_out = MutableData<float>(column);
  float* row_out = MutableData<float>(row);
  const cpu::SinkhornKernels& kernels = *cpu::PickSinkhorn(dtype);
  const auto solve = [&](int64_t i, const cpu::SinkhornParallelFor& parallel_for) {
    const cpu::SinkhornMatrix matrix = {values + i * n * k * DTypeBytes(dtype), dtype,
                                        kept != nullptr ? kept + i * n * k : nullptr, n, k, column_out + i * k,
                                        row_out + i * n};
    cpu::Sinkhorn(kernels, matrix, kind, iterations, parallel_for);
  };
  if (b == 1) {  // threads share the one matrix
    solve(0, [](int64_t count, const std::function<void(int64_t, int64_t)>& body) {
      torch::stable::parallel_for(0, count, 1, body);
    });
  } else {
    torch::stable::parallel_for(0, b, 1, [&](int64_t begin, int64_t end) {
      const auto serial = [](int64_t count, const std::function<void(int64_t, int64_t)>& body) { body(0, count); };
      for (int64_t i = begin; i < end; ++i) solve(i, serial);
    });
  }
  return {column, row};
}

}  // namespace prism

STABLE_TORCH_LIBRARY_IMPL(prism, CPU, m) { m.impl("sinkhorn", TORCH_BOX(&prism::SinkhornCpu)); }
