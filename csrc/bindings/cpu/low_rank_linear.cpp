#include "../../cpu/low_rank_linear.h"

#include <vector>

#include "../common.h"

namespace prism {

Tensor LowRankLinearCpu(const Tensor& x, const Tensor& a, const Tensor& b, std::optional<Tensor> bias) {
  const char* op = "low_rank_linear";
  const DType dtype = FloatDType(x, op, "x");
  STD_TORCH_CHECK(x.dim() == 2 && a.dim() == 2 && b.dim() == 2, op, ": x, a and b must have 2 dimensions");
  const int64_t m = x.size(0), k = x.size(1), rank = a.size(0), n = b.size(0);
  STD_TORCH_CHECK(a.size(1) == k && b.size(1) == rank, op, ": a must be [rank, k] and b [n, rank]");
  const cpu::DenseRows first{a.const_data_ptr(), k, FloatDType(a, op, "a")};
  const cpu::DenseRows second{b.const_data_ptr(), rank, FloatDType(b, op, "b")};
  if (bias.has_value()) {
    CheckTensor(*bias, x.scalar_type(), op, "bias");
    CheckNumel(*bias, n, op, "bias");
  }
  Tensor y = torch::stable::new_empty(x, {m, n});
  std::vector<float> floats(static_cast<size_t>(m * k)), hidden(static_cast<size_t>(m * rank));
  std::vector<float> sums(static_cast<size_t>(m * n));
  for (int64_t i = 0; i < m * k; ++i) floats[i] = LoadFloat(x.const_data_ptr(), dtype, i);
  const cpu::LowRankLinearFn kernel = cpu::PickLowRankLinear();
  const auto multiply = [&](const cpu::DenseRows& w, const float* from, int64_t rows, float* to) {
    const int64_t grain = std::max<int64_t>(4, 65536 / std::max<int64_t>(w.k, 1));
    torch::stable::parallel_for(0, rows, grain, [&](int64_t begin, int64_t end) { kernel(w, from, m, begin, end, to, rows); });
  };
  multiply(first, floats.data(), rank, hidden.data());
  multiply(second, hidden.data(), n, sums.data());
  for (int64_t i = 0; i < m * n; ++i) {
    const float shift = bias.has_value() ? LoadFloat(bias->const_data_ptr(), dtype, i % n) : 0.0f;
    StoreFloat(sums[i] + shift, y.mutable_data_ptr(), dtype, i);
  }
  return y;
}

}  // namespace prism

STABLE_TORCH_LIBRARY_IMPL(prism, CPU, m) { m.impl("low_rank_linear", TORCH_BOX(&prism::LowRankLinearCpu)); }
