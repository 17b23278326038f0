#include "cuda/nm_mask.cuh"

#include "check.h"
#include "cpu/nm_mask.h"

using namespace prism;

int main() {
  for (const int64_t k : {1, 3, 4, 8, 17, 33, 129}) {
    for (const auto& [n_keep, m] : {std::pair<int64_t, int64_t>{2, 4}, {1, 4}, {4, 8}, {3, 5}, {16, 32}}) {
      const int64_t rows = 5;
      test::Buffer<float> scores(rows * k);
      for (int64_t i = 0; i < scores.size(); ++i) scores[i] = static_cast<float>(test::RandomInt(-2, 2));
      test::Buffer<bool> mask(rows * k), expected(rows * k);
      PRISM_CHECK(cuda::NmMask(scores.data(), rows, k, n_keep, m, mask.data(), nullptr) == cudaSuccess, "launch");
      cpu::generic::NmMask(scores.data(), rows, k, n_keep, m, expected.data());
      for (int64_t i = 0; i < mask.size(); ++i) {
        PRISM_CHECK(mask[i] == expected[i], "k=%ld %ld:%ld element %ld", k, n_keep, m, i);
      }
    }
  }
  return 0;
}
