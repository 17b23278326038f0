#include "../../cpu/obs_sweep.h"

#include <algorithm>
#include <vector>

#include "../common.h"

namespace prism {
namespace {

using OptionalTensor = std::optional<Tensor>;

void CheckOptional(const OptionalTensor& t, ScalarType dtype, int64_t numel, const char* name) {
  if (!t.has_value()) return;
  CheckTensor(*t, dtype, "obs_sweep", name);
  CheckNumel(*t, numel, "obs_sweep", name);
}

template <class T>
const T* DataOrNull(const OptionalTensor& t) { return t.has_value() ? ConstData<T>(*t) : nullptr; }

}  // namespace

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> ObsSweepCpu(
    const Tensor& weight, const Tensor& factor, const OptionalTensor& mask, int64_t n_keep, int64_t m,
    const OptionalTensor& column_scale, const OptionalTensor& scale, const OptionalTensor& zero, int64_t bits,
    int64_t group_size) {
  CheckTensor(weight, ScalarType::Float, "obs_sweep", "weight");
  CheckTensor(factor, ScalarType::Float, "obs_sweep", "factor");
  STD_TORCH_CHECK(weight.dim() == 2, "obs_sweep: weight must have 2 dimensions");
  STD_TORCH_CHECK(m >= 0 && n_keep >= 0 && n_keep <= m, "obs_sweep: needs 0 <= n_keep <= m");
  STD_TORCH_CHECK(bits >= 0 && bits <= 8, "obs_sweep: bits must be between 0 and 8");
  STD_TORCH_CHECK(bits == 0 || group_size >= 1, "obs_sweep: group_size must be at least 1");
  STD_TORCH_CHECK(scale.has_value() == zero.has_value(), "obs_sweep: scale and zero come together");
  const int64_t n = weight.size(0), b = weight.size(1);
  const int64_t groups = bits > 0 ? CeilDiv(b, group_size) : 0;
  CheckNumel(factor, b * b, "obs_sweep", "factor");
  CheckOptional(mask, ScalarType::Bool, n * b, "mask");
  CheckOptional(column_scale, ScalarType::BFloat16, b, "column_scale");
  CheckOptional(scale, ScalarType::BFloat16, n * groups, "scale");
  CheckOptional(zero, ScalarType::Byte, n * groups, "zero");

  Tensor compensated = torch::stable::new_empty(weight, {n, b});
  Tensor error = torch::stable::new_empty(weight, {n, b});
  Tensor kept = torch::stable::new_empty(weight, {n, b}, ScalarType::Bool);
  Tensor codes = torch::stable::new_empty(weight, {n, bits > 0 ? b : 0}, ScalarType::Byte);
  Tensor scale_out = torch::stable::new_empty(weight, {n, groups}, ScalarType::BFloat16);
  Tensor zero_out = torch::stable::new_empty(weight, {n, groups}, ScalarType::Byte);

  std::vector<float> packed(static_cast<size_t>(cpu::PackedObsFactorSize(b)));
  cpu::PackObsFactor(ConstData<float>(factor), b, packed.data());
  std::vector<float> columns(static_cast<size_t>(b), 1.0f);
  if (const uint16_t* given = DataOrNull<uint16_t>(column_scale)) {
    std::transform(given, given + b, columns.begin(), BFloat16ToFloat);
  }
  const cpu::ObsSweepProblem problem = {
      .weight = ConstData<float>(weight),
      .packed = packed.data(),
      .mask = DataOrNull<uint8_t>(mask),
      .column_scale = columns.data(),
      .scale = DataOrNull<uint16_t>(scale),
      .zero = DataOrNull<uint8_t>(zero),
      .b = b,
      .n_keep = n_keep,
      .m = m,
      .bits = bits,
      .group_size = group_size,
      .groups = groups,
      .compensated = MutableData<float>(compensated),
      .error = MutableData<float>(error),
      .kept = MutableData<uint8_t>(kept),
      .codes = MutableData<uint8_t>(codes),
      .scale_out = MutableData<uint16_t>(scale_out),
      .zero_out = MutableData<uint8_t>(zero_out),
  };
  const cpu::ObsSweepFn kernel = cpu::PickObsSweep();
  constexpr int64_t kRowsPerTask = 64;
  torch::stable::parallel_for(0, CeilDiv(n, kRowsPerTask), 1, [&](int64_t begin, int64_t end) {
    kernel(problem, begin * kRowsPerTask, std::min(end * kRowsPerTask, n));
  });
  return {compensated, error, kept, codes, scale_out, zero_out};
}

}  // namespace prism

STABLE_TORCH_LIBRARY_IMPL(prism, CPU, m) { m.impl("obs_sweep", TORCH_BOX(&prism::ObsSweepCpu)); }
