#include "../../cuda/low_rank_linear.cuh"

#include "../common.h"
#include "common.h"

namespace prism {

Tensor LowRankLinearCuda(const Tensor& x, const Tensor& a, const Tensor& b, std::optional<Tensor> bias) {
  const char* op = "low_rank_linear";
  const DType dtype = FloatDType(x, op, "x");
  STD_TORCH_CHECK(x.dim() == 2 && a.dim() == 2 && b.dim() == 2, op, ": x, a and b must have 2 dimensions");
  const int64_t m = x.size(0), k = x.size(1), rank = a.size(0), n = b.size(0);
  STD_TORCH_CHECK(a.size(1) == k && b.size(1) == rank, op, ": a must be [rank, k] and b [n, rank]");
  STD_TORCH_CHECK(a.get_device_index() == x.get_device_index() && b.get_device_index() == x.get_device_index(), op,
                  ": a and b must be on the device of x");
  if (bias.has_value()) {
    CheckTensor(*bias, x.scalar_type(), op, "bias");
    CheckNumel(*bias, n, op, "bias");
    STD_TORCH_CHECK(bias->get_device_index() == x.get_device_index(), op, ": bias must be on the device of x");
  }
  const CurrentStream current(x);
  Tensor y = torch::stable::new_empty(x, {m, n});
  Tensor hidden = torch::stable::new_empty(x, {m, rank}, ScalarType::Float);
  const cuda::LowRankLinearArgs args = {x.const_data_ptr(), a.const_data_ptr(), b.const_data_ptr(),
                                        bias.has_value() ? bias->const_data_ptr() : nullptr, y.mutable_data_ptr(),
                                        MutableData<float>(hidden), m, n, k, rank, dtype, FloatDType(a, op, "a"),
                                        FloatDType(b, op, "b")};
  CheckLaunch(cuda::LowRankLinear(args, current.stream), op);
  return y;
}

}  // namespace prism

STABLE_TORCH_LIBRARY_IMPL(prism, CUDA, m) { m.impl("low_rank_linear", TORCH_BOX(&prism::LowRankLinearCuda)); }
