#include "cpu/low_rank_linear.h"

#include <cmath>

#include "check.h"

using namespace prism;

int main() {
  test::ForEachIsa([] {
    for (const int64_t k : {1, 7, 16, 33, 100}) {
      for (const int64_t n : {1, 4, 7}) {
        for (const int64_t m : {1, 2, 3, 4, 7}) {
          for (const DType dtype : {DType::kFloat32, DType::kFloat16, DType::kBFloat16}) {
            test::Buffer<uint8_t> weight(n * k * DTypeBytes(dtype));
            test::Buffer<float> x(m * k), out(m * n);
            for (int64_t i = 0; i < n * k; ++i) StoreFloat(test::RandomNormal(), weight.data(), dtype, i);
            for (int64_t i = 0; i < x.size(); ++i) x[i] = test::RandomNormal();
            cpu::PickLowRankLinear()({weight.data(), k, dtype}, x.data(), m, 0, n, out.data(), n);
            for (int64_t i = 0; i < m * n; ++i) {
              double expected = 0.0;
              for (int64_t j = 0; j < k; ++j) {
                expected += static_cast<double>(x[i / n * k + j]) * LoadFloat(weight.data(), dtype, i % n * k + j);
              }
              PRISM_CHECK(std::abs(out[i] - expected) <= 1e-4, "m=%ld k=%ld: got %g, expected %g", m, k, out[i], expected);
            }
          }
        }
      }
    }
  });
  return 0;
}
