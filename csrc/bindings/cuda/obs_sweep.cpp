#include "../../cuda/obs_sweep.cuh"

#include "../common.h"
#include "common.h"

namespace prism {
namespace {

using OptionalTensor = std::optional<Tensor>;

void CheckOptional(const OptionalTensor& t, ScalarType dtype, int64_t numel, const Tensor& weight, const char* name) {
  if (!t.has_value()) return;
  CheckTensor(*t, dtype, "obs_sweep", name);
  CheckNumel(*t, numel, "obs_sweep", name);
  STD_TORCH_CHECK(t->get_device_index() == weight.get_device_index(), "obs_sweep: ", name, " must be on the weight's device");
}

template <class T>
const T* DataOrNull(const OptionalTensor& t) { return t.has_value() ? ConstData<T>(*t) : nullptr; }

}  // namespace

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> ObsSweepCuda(
    const Tensor& weight, const Tensor& factor, const OptionalTensor& mask, int64_t n_keep, int64_t m,
    const OptionalTensor& column_scale, const OptionalTensor& scale, const OptionalTensor& zero, int64_t bits,
    int64_t group_size) {
  CheckTensor(weight, ScalarType::Float, "obs_sweep", "weight");
  STD_TORCH_CHECK(weight.dim() == 2, "obs_sweep: weight must have 2 dimensions");
  STD_TORCH_CHECK(m >= 0 && n_keep >= 0 && n_keep <= m, "obs_sweep: needs 0 <= n_keep <= m");
  STD_TORCH_CHECK(bits >= 0 && bits <= 8, "obs_sweep: bits must be between 0 and 8");
  STD_TORCH_CHECK(bits == 0 || group_size >= 1, "obs_sweep: group_size must be at least 1");
  STD_TORCH_CHECK(scale.has_value() == zero.has_value(), "obs_sweep: scale and zero come together");
  const int64_t n = weight.size(0), b = weight.size(1), groups = bits > 0 ? (b + group_size - 1) / group_size : 0;
  CheckOptional(factor, ScalarType::Float, b * b, weight, "factor");
  CheckOptional(mask, ScalarType::Bool, n * b, weight, "mask");
  CheckOptional(column_scale, ScalarType::BFloat16, b, weight, "column_scale");
  CheckOptional(scale, ScalarType::BFloat16, n * groups, weight, "scale");
  CheckOptional(zero, ScalarType::Byte, n * groups, weight, "zero");

  const CurrentStream current(weight);
  Tensor compensated = torch::stable::new_empty(weight, {n, b});
  Tensor error = torch::stable::new_empty(weight, {n, b});
  Tensor kept = torch::stable::new_empty(weight, {n, b}, ScalarType::Bool);
  Tensor codes = torch::stable::new_empty(weight, {n, bits > 0 ? b : 0}, ScalarType::Byte);
  Tensor scale_out = torch::stable::new_empty(weight, {n, groups}, ScalarType::BFloat16);
  Tensor zero_out = torch::stable::new_empty(weight, {n, groups}, ScalarType::Byte);
  Tensor workspace = torch::stable::new_empty(weight, {cuda::ObsSweepWorkspace(n, b)}, ScalarType::Byte);
  const cuda::ObsSweepArgs args = {
      ConstData<float>(weight), ConstData<float>(factor), DataOrNull<bool>(mask), DataOrNull<uint16_t>(column_scale),
      DataOrNull<uint16_t>(scale), DataOrNull<uint8_t>(zero), n, b, n_keep, m, bits, group_size, groups,
      MutableData<float>(compensated), MutableData<float>(error), MutableData<bool>(kept), MutableData<uint8_t>(codes),
      MutableData<uint16_t>(scale_out), MutableData<uint8_t>(zero_out), MutableData<unsigned char>(workspace)};
  CheckLaunch(cuda::ObsSweep(args, current.stream), "obs_sweep");
  return {compensated, error, kept, codes, scale_out, zero_out};
}

}  // namespace prism

STABLE_TORCH_LIBRARY_IMPL(prism, CUDA, m) { m.impl("obs_sweep", TORCH_BOX(&prism::ObsSweepCuda)); }
