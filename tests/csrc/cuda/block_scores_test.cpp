// block_scores on the device against the CPU kernel, bit for bit.
#include "cuda/block_scores.cuh"

#include "check.h"
#include "common/panels.h"
#include "cpu/block_scores.h"

using namespace prism;

int main() {
  for (const int64_t n : {1, 3, 16, 17, 40}) {
    for (const int64_t k : {1, 7, 16, 33, 130}) {
      test::Buffer<float> scores(n * k);
      test::Buffer<bool> mask(n * k);
      for (int64_t i = 0; i < scores.size(); ++i) {
        mask[i] = test::RandomInt(0, 1) != 0;
        scores[i] = test::RandomNormal();
      }
      const int64_t tiles = CeilDiv(k, 16);
      test::Buffer<float> sums(NumPanels(n) * tiles), expected(NumPanels(n) * tiles);
      for (const bool* kept : {static_cast<const bool*>(nullptr), static_cast<const bool*>(mask.data())}) {
        cpu::generic::BlockScores(scores.data(), kept, n, k, 0, NumPanels(n), expected.data());
        PRISM_CHECK(cuda::BlockScores(scores.data(), kept, n, k, sums.data(), nullptr) == cudaSuccess, "launch");
        for (int64_t i = 0; i < sums.size(); ++i) {
          PRISM_CHECK(sums[i] == expected[i], "%ldx%ld tile %ld: %g, expected %g", n, k, i, static_cast<double>(sums[i]),
                      static_cast<double>(expected[i]));
        }
      }
    }
  }
  return 0;
}
