#include "cuda/sparse24_dual_shift_linear.cuh"

#include <cmath>

#include "cuda/sparse24_pack.cuh"
#include "sparse24_cases.h"

using namespace prism;

namespace {

void TestLinear(int64_t m, int64_t n, int64_t k, int64_t group_size, DType dtype, bool with_bias) {
  const int64_t panels = NumPanels(n), groups = CeilDiv(k, group_size);
  test::Buffer<uint16_t> x(m * k), bias(n), y(m * n), scale(panels * groups * 16), column_scale(k);
  test::Buffer<uint8_t> codes(n * k), zero(panels * groups * 8);
  test::Buffer<uint32_t> words(test::PackedCodeWords(n, k)), columns(test::PackedColumnWords(n, k));
  test::Buffer<float> scratch(cuda::Sparse24DualShiftLinearScratch(m, n, k));
  test::Buffer<bool> mask = test::QuadMask(n, k, 2);
  for (int64_t i = 0; i < m * k; ++i) StoreFloat(test::RandomNormal(), x.data(), dtype, i);
  for (int64_t i = 0; i < n; ++i) StoreFloat(test::RandomNormal(), bias.data(), dtype, i);
  for (int64_t i = 0; i < n * k; ++i) codes[i] = static_cast<uint8_t>(test::RandomInt(0, 15));
  for (int64_t i = 0; i < zero.size(); ++i) zero[i] = static_cast<uint8_t>(test::RandomInt(0, 255));
  for (int64_t i = 0; i < scale.size(); ++i) scale[i] = FloatToBFloat16(0.01f + 0.1f * std::abs(test::RandomNormal()));
  for (int64_t i = 0; i < k; ++i) column_scale[i] = FloatToBFloat16(0.5f + std::abs(test::RandomNormal()));
  cuda::Sparse24PackCodes(codes.data(), mask.data(), n, k, words.data(), columns.data(), nullptr);
  const cuda::Sparse24DualShift weight{words.data(), columns.data(),      scale.data(),
                                       zero.data(),  column_scale.data(), group_size};
  PRISM_CHECK(cuda::Sparse24DualShiftLinear(x.data(), weight, with_bias ? bias.data() : nullptr, dtype, m, n, k,
                                            scratch.data(), y.data(), nullptr) == cudaSuccess, "launch");
  const double rounding = dtype == DType::kBFloat16 ? 0x1p-8 : 0x1p-11;
  uint16_t rounded;
  for (int64_t token = 0; token < m; ++token) {
    for (int64_t row = 0; row < n; ++row) {
      double expected = with_bias ? LoadFloat(bias.data(), dtype, row) : 0, magnitude = std::abs(expected);
      for (int64_t i = 0; i < k; ++i) {
        if (!mask[row * k + i]) continue;
        const int64_t at = row / 16 * groups + i / group_size;
        const int z = zero[at * 8 + row % 8] >> (row % 16 / 8 * 4) & 15;
        StoreFloat(LoadFloat(x.data(), dtype, token * k + i) * BFloat16ToFloat(column_scale[i]), &rounded, dtype, 0);
        const double step = (codes[row * k + i] - z) * static_cast<double>(BFloat16ToFloat(scale[at * 16 + row % 16]));
        const double product = step * static_cast<double>(LoadFloat(&rounded, dtype, 0));
        expected += product, magnitude += std::abs(product);
      }
      const double error = std::abs(static_cast<double>(LoadFloat(y.data(), dtype, token * n + row)) - expected);
      PRISM_CHECK(error <= 1.01 * rounding * std::abs(expected) + 1e-5 * magnitude,
                  "m=%ld n=%ld k=%ld g=%ld dtype %d token %ld row %ld: error %g of %g", m, n, k, group_size,
                  static_cast<int>(dtype), token, row, error, expected);
    }
  }
}

}  // namespace

int main() {
  const int64_t shapes[][3] = {{1, 1, 1}, {3, 5, 7}, {8, 17, 65}, {2, 33, 200}, {9, 7, 9}, {16, 33, 1100}, {33, 40, 200}};
  for (const auto& [m, n, k] : shapes) {
    for (const int64_t group_size : {32, 64, 96, 192, 4096}) {
      const DType dtype = (m + group_size / 32) % 2 == 0 ? DType::kBFloat16 : DType::kFloat16;
      TestLinear(m, n, k, group_size, dtype, n % 2 == 0);
    }
  }
  TestLinear(1, 50, 1160, 64, DType::kBFloat16, true);
  TestLinear(65, 35, 72, 64, DType::kBFloat16, true);
  TestLinear(65, 35, 72, 32, DType::kFloat16, false);  // two groups in a tile: never more than 32 tokens at once
  return 0;
}
