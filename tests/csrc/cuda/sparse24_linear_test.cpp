#include "cuda/sparse24_linear.cuh"

#include <cmath>

#include "cuda/sparse24_pack.cuh"
#include "sparse24_cases.h"

using namespace prism;

namespace {

void TestLinear(int64_t m, int64_t n, int64_t k, DType dtype, bool with_bias) {
  const auto to_float = [&](uint16_t bits) {
    return static_cast<double>(dtype == DType::kBFloat16 ? BFloat16ToFloat(bits) : Float16ToFloat(bits));
  };
  const auto random = [&](test::Buffer<uint16_t>& values) {
    for (int64_t i = 0; i < values.size(); ++i) StoreFloat(test::RandomNormal(), values.data(), dtype, i);
  };
  test::Buffer<uint16_t> x(m * k), weight(n * k), bias(n), y(m * n), values(2 * test::PackedPairs(n, k));
  test::Buffer<uint32_t> columns(test::PackedColumnWords(n, k));
  test::Buffer<float> scratch(cuda::Sparse24LinearScratch(m, n, k));
  test::Buffer<bool> mask = test::QuadMask(n, k, 0);
  random(x), random(weight), random(bias);
  cuda::Sparse24Pack(weight.data(), mask.data(), n, k, values.data(), columns.data(), nullptr);
  PRISM_CHECK(cuda::Sparse24Linear(x.data(), values.data(), columns.data(), with_bias ? bias.data() : nullptr, dtype, m, n, k,
                                   scratch.data(), y.data(), nullptr) == cudaSuccess, "launch");
  const double rounding = dtype == DType::kBFloat16 ? 0x1p-8 : 0x1p-11;
  for (int64_t token = 0; token < m; ++token) {
    for (int64_t row = 0; row < n; ++row) {
      double expected = with_bias ? to_float(bias[row]) : 0, magnitude = std::abs(expected);
      for (int64_t i = 0; i < k; ++i) {
        if (!mask[row * k + i]) continue;
        const double product = to_float(x[token * k + i]) * to_float(weight[row * k + i]);
        expected += product, magnitude += std::abs(product);
      }
      const double error = std::abs(to_float(y[token * n + row]) - expected);
      PRISM_CHECK(error <= 1.01 * rounding * std::abs(expected) + 1e-5 * magnitude,
                  "m=%ld n=%ld k=%ld dtype %d token %ld row %ld: error %g of %g", m, n, k, static_cast<int>(dtype), token, row,
                  error, expected);
    }
  }
}

}  // namespace

int main() {
  const int64_t shapes[][3] = {{1, 1, 1}, {3, 5, 7}, {8, 17, 65}, {2, 33, 200}, {1, 50, 1160}, {9, 7, 9},
                               {11, 130, 136}, {16, 33, 1100}, {17, 20, 70}, {33, 40, 200}, {65, 35, 72}};
  for (const auto& [m, n, k] : shapes) {
    for (const DType dtype : {DType::kBFloat16, DType::kFloat16}) TestLinear(m, n, k, dtype, (m + n) % 2 == 0);
  }
  TestLinear(1, 112, 64, DType::kBFloat16, true);  // more blocks than twice the multiprocessors: fewer warps each
  return 0;
}
