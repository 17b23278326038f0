#include "cpu/block_scores.h"

#include "check.h"
#include "cpu/tiered.h"

using namespace prism;

int main() {
  test::ForEachIsa([] {
    for (const int64_t n : {1, 15, 16, 33}) {
      for (const int64_t k : {1, 7, 16, 31, 32, 50}) {
        test::Buffer<float> scores(n * k), sums(NumPanels(n) * cpu::NumTiles(k)), expected(sums.size());
        test::Buffer<bool> mask(n * k);
        for (int64_t i = 0; i < scores.size(); ++i) scores[i] = static_cast<float>(test::RandomInt(-9, 9));
        for (int64_t i = 0; i < mask.size(); ++i) mask[i] = test::RandomInt(0, 1) == 1;
        for (const bool* kept : {static_cast<const bool*>(nullptr), static_cast<const bool*>(mask.data())}) {
          for (int64_t i = 0; i < sums.size(); ++i) expected[i] = 0.0f;
          for (int64_t i = 0; i < n * k; ++i) {
            if (kept == nullptr || kept[i]) expected[i / k / 16 * cpu::NumTiles(k) + i % k / 16] += scores[i];
          }
          cpu::PickBlockScores()(scores.data(), kept, n, k, 0, NumPanels(n), sums.data());
          for (int64_t i = 0; i < sums.size(); ++i) {
            PRISM_CHECK(sums[i] == expected[i], "n=%ld k=%ld tile %ld: got %g, expected %g", n, k, i, sums[i], expected[i]);
          }
        }
      }
    }
  });
  return 0;
}
