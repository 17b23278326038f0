// low_rank_linear on the device: random factors in exact-size buffers against plain loops.
#include "cuda/low_rank_linear.cuh"

#include <cmath>

#include "check.h"

using namespace prism;

namespace {

test::Buffer<uint8_t> Normal(int64_t size, DType dtype, float scale) {
  test::Buffer<uint8_t> buffer(size * DTypeBytes(dtype));
  for (int64_t i = 0; i < size; ++i) StoreFloat(scale * test::RandomNormal(), buffer.data(), dtype, i);
  return buffer;
}

void Multiply(int64_t m, int64_t n, int64_t k, int64_t rank, DType dtype, DType a_dtype, DType b_dtype, bool biased) {
  test::Buffer<uint8_t> x = Normal(m * k, dtype, 1), bias = Normal(n, dtype, 1), y(m * n * DTypeBytes(dtype));
  test::Buffer<uint8_t> a = Normal(rank * k, a_dtype, 1 / std::sqrt(static_cast<float>(k + 1)));
  test::Buffer<uint8_t> b = Normal(n * rank, b_dtype, 1 / std::sqrt(static_cast<float>(rank + 1)));
  test::Buffer<float> hidden(m * rank);
  const cuda::LowRankLinearArgs args = {x.data(), a.data(), b.data(), biased ? bias.data() : nullptr, y.data(), hidden.data(),
                                        m, n, k, rank, dtype, a_dtype, b_dtype};
  PRISM_CHECK(cuda::LowRankLinear(args, nullptr) == cudaSuccess, "launch");
  const auto value = [](test::Buffer<uint8_t>& from, DType type, int64_t i) {
    return static_cast<double>(LoadFloat(from.data(), type, i));
  };
  for (int64_t t = 0; t < m; ++t) {
    std::vector<double> between(static_cast<size_t>(rank), 0.0);
    for (int64_t r = 0; r < rank; ++r) {
      for (int64_t j = 0; j < k; ++j) between[static_cast<size_t>(r)] += value(a, a_dtype, r * k + j) * value(x, dtype, t * k + j);
    }
    for (int64_t row = 0; row < n; ++row) {
      double expected = biased ? value(bias, dtype, row) : 0.0;
      for (int64_t r = 0; r < rank; ++r) expected += value(b, b_dtype, row * rank + r) * between[static_cast<size_t>(r)];
      const double got = value(y, dtype, t * n + row);
      const double rounding = dtype == DType::kFloat32 ? 0 : dtype == DType::kFloat16 ? 1.0 / 2048 : 1.0 / 256;
      PRISM_CHECK(std::abs(got - expected) <= 2e-5 + rounding * std::abs(expected), "m=%ld n=%ld k=%ld rank=%ld: got %g, expected %g",
                  m, n, k, rank, got, expected);
    }
  }
}

}  // namespace

int main() {
  const DType types[] = {DType::kBFloat16, DType::kFloat32, DType::kFloat16};
  for (int i = 0; i < 9; ++i) {  // k and rank of whole vectors and of none, every pair of dtypes
    const DType dtype = types[i % 3], a_dtype = types[i / 3], b_dtype = types[(i / 3 + i) % 3];
    Multiply(i < 3 ? 1 : 3, 33, 65, 7, dtype, a_dtype, b_dtype, i % 2 == 0);
    for (const int64_t m : {1, 3, 9}) Multiply(m, 19, 264, 24, dtype, a_dtype, b_dtype, i % 2 == 1);
  }
  Multiply(2, 5, 4104, 17, DType::kBFloat16, DType::kBFloat16, DType::kBFloat16, true);  // eight warps share a row
  Multiply(9, 6, 1500, 3, DType::kFloat32, DType::kBFloat16, DType::kFloat32, true);
  Multiply(3, 4, 0, 5, DType::kFloat32, DType::kFloat32, DType::kFloat32, true);
  Multiply(3, 4, 5, 0, DType::kFloat32, DType::kFloat32, DType::kFloat32, true);
  Multiply(0, 4, 5, 2, DType::kFloat32, DType::kFloat32, DType::kFloat32, false);
  Multiply(1, 0, 5, 2, DType::kFloat32, DType::kFloat32, DType::kFloat32, false);
  return 0;
}
