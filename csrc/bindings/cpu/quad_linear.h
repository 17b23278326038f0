// What the bindings of the linears over quads share.
#pragma once
#include "../../cpu/quad_linear_call.h"
#include "quantized.h"

namespace prism {

// Sums of one group must fit 32 bits: 255 * 127 * 65536 just does.
inline void CheckInt8(const std::optional<int64_t>& activation_bits, const cpu::QuadGrid& grid, int64_t k,
                      const char* op) {
  if (!activation_bits.has_value()) return;
  STD_TORCH_CHECK(*activation_bits == 8, op, ": activation_bits must be 8 or None, got ", *activation_bits);
  STD_TORCH_CHECK(grid.codebook == Codebook::kUniform, op, ": activation_bits needs the uniform codebook");
  STD_TORCH_CHECK(std::min(grid.group_size, k) <= 65536, op, ": activation_bits needs groups of at most 65536 columns");
}

// All threads of torch.
struct TorchParallel {
  template <class Body>
  void operator()(int64_t count, int64_t grain, Body body) const {
    torch::stable::parallel_for(0, count, grain, body);
  }
};

// bias [n] as float32 [16 * panels], empty where there is none.
inline std::vector<float> PaddedBias(const std::optional<Tensor>& bias, const Tensor& x, int64_t n, const char* op) {
  std::vector<float> values;
  if (!bias.has_value()) return values;
  const DType dtype = FloatDType(*bias, op, "bias");
  CheckTensor(*bias, x.scalar_type(), op, "bias");
  CheckNumel(*bias, n, op, "bias");
  values.resize(static_cast<size_t>(NumPanels(n) * kPanelRows));
  for (int64_t i = 0; i < n; ++i) values[static_cast<size_t>(i)] = LoadFloat(bias->const_data_ptr(), dtype, i);
  return values;
}

// y [m, n] of x.dtype where there is nothing to multiply: bias, or 0.
inline void StoreBias(const std::vector<float>& bias, int64_t m, int64_t n, DType dtype, void* y) {
  for (int64_t i = 0; i < m * n; ++i) StoreFloat(bias.empty() ? 0.0f : bias[static_cast<size_t>(i % n)], y, dtype, i);
}

}  // namespace prism
