// The linears over quads in exact-size buffers, called as the bindings call them, against a double loop over the weight.
#pragma once
#include <cmath>

#include "check.h"
#include "cpu/quad_linear_call.h"

namespace prism::test {

constexpr int64_t kTokens[] = {1, 2, 5, 7, 17, 23};

// Two ranges, the second first: no kernel may count on one that starts at 0 or on an order.
struct TwoRanges {
  template <class Body>
  void operator()(int64_t count, int64_t, Body body) const {
    if (count > 1) body(count / 2, count);
    body(0, count > 1 ? count / 2 : count);
  }
};

// Scales and zero points of a weight [n, k].
struct Grid {
  Grid(int64_t n, int64_t k, int64_t group_size, int bits, Codebook codebook)
      : scale(NumPanels(n) * CeilDiv(k, group_size) * kPanelRows),
        zero(codebook == Codebook::kUniform ? NumPanels(n) * CeilDiv(k, group_size) * ZeroBytes(bits) : 0) {
    for (int64_t i = 0; i < scale.size(); ++i) scale[i] = FloatToBFloat16(static_cast<float>(RandomInt(1, 9)));
    const int64_t top = (1 << bits) - 1;
    for (int64_t i = 0; i < zero.size(); ++i) {
      zero[i] = static_cast<uint8_t>(RandomInt(0, top) | (bits <= 4 ? RandomInt(0, top) << 4 : 0));
    }
    view = {scale.data(), zero.data(), CeilDiv(k, group_size), group_size, bits, codebook};
  }
  Buffer<uint16_t> scale;
  Buffer<uint8_t> zero;
  cpu::QuadGrid view;
};

// One call: x [m, k] of small integers that every arithmetic holds exactly (127 among them, so that int8 activations are
// the integers themselves), bias by row, y as float32.
struct Call {
  Call(DType dtype, int64_t m, int64_t n, int64_t k)
      : dtype(dtype), values(m * k), scale(k), bias(NumPanels(n) * kPanelRows), y(m * n), halves(m * k), y_halves(m * n) {
    for (int64_t i = 0; i < m * k; ++i) {
      values[i] = static_cast<float>(i % k == 0 ? 127 : RandomInt(-127, 127));
      halves[i] = FloatToBFloat16(values[i]);
    }
    for (int64_t j = 0; j < k; ++j) scale[j] = 1.0f;
    for (int64_t i = 0; i < bias.size(); ++i) bias[i] = static_cast<float>(i);
  }

  template <class Kernel, class Weight>
  void Run(const Kernel& kernel, const Weight& packed, const cpu::QuadGrid& grid, cpu::Arithmetic arithmetic, int64_t m,
           int64_t n, int64_t k) {
    const bool wide = dtype == DType::kFloat32;
    const cpu::QuadInput input{wide ? static_cast<void*>(values.data()) : halves.data(), dtype, m, k,
                               grid.scale != nullptr ? scale.data() : nullptr, false};
    cpu::CallQuadLinear(kernel, packed, grid, arithmetic, input, bias.data(), n,
                        wide ? static_cast<void*>(y.data()) : y_halves.data(), TwoRanges());
    for (int64_t i = 0; !wide && i < m * n; ++i) y[i] = BFloat16ToFloat(y_halves[i]);
  }

  DType dtype;
  Buffer<float> values, scale, bias, y;
  Buffer<uint16_t> halves, y_halves;
};

// For the sanitizers alone: a bitmap that promises too much gives anything.
template <class Kernel, class Weight>
void RunLinear(const Kernel& kernel, const Weight& packed, const cpu::QuadGrid& grid, cpu::Arithmetic arithmetic,
               DType dtype, int64_t m, int64_t n, int64_t k) {
  Call(dtype, m, n, k).Run(kernel, packed, grid, arithmetic, m, n, k);
}

// y = x @ weight^T + bias for weight [n, k].
template <class Kernel, class Weight>
void CheckLinear(const Kernel& kernel, const Weight& packed, const cpu::QuadGrid& grid, cpu::Arithmetic arithmetic,
                 DType dtype, int64_t m, int64_t n, int64_t k, Buffer<float>& weight) {
  Call call(dtype, m, n, k);
  call.Run(kernel, packed, grid, arithmetic, m, n, k);
  for (int64_t t = 0; t < m; ++t) {
    for (int64_t row = 0; row < n; ++row) {
      double sum = call.bias[row], magnitude = 1.0 + std::fabs(sum);
      for (int64_t j = 0; j < k; ++j) {
        const double product = static_cast<double>(call.values[t * k + j]) * weight[row * k + j];
        sum += product;
        magnitude += std::fabs(product);
      }
      const double got = call.y[t * n + row], limit = magnitude * (dtype == DType::kFloat32 ? 2e-6 : 0x1p-7);
      PRISM_CHECK(std::fabs(got - sum) <= limit, "m=%ld n=%ld k=%ld bits=%d token %ld row %ld: %g, expected %g", m, n, k,
                  grid.bits, t, row, got, sum);
    }
  }
}

}  // namespace prism::test
