#include "cpu/nm_mask.h"

#include "check.h"

using namespace prism;

int main() {
  test::ForEachIsa([] {
    for (const int64_t k : {1, 3, 4, 7, 8, 15, 16, 17, 31, 33, 64, 65, 129}) {
      for (const auto& [n_keep, m] : {std::pair<int64_t, int64_t>{2, 4}, {1, 4}, {4, 8}, {1, 2}, {5, 16}, {3, 5}, {16, 32}}) {
        const int64_t rows = 3;
        test::Buffer<float> scores(rows * k);
        for (int64_t i = 0; i < scores.size(); ++i) scores[i] = static_cast<float>(test::RandomInt(-2, 2));
        test::Buffer<bool> mask(rows * k), expected(rows * k);
        cpu::PickNmMask()(scores.data(), rows, k, n_keep, m, mask.data());
        cpu::generic::NmMask(scores.data(), rows, k, n_keep, m, expected.data());
        for (int64_t i = 0; i < mask.size(); ++i) {
          PRISM_CHECK(mask[i] == expected[i], "k=%ld %ld:%ld element %ld", k, n_keep, m, i);
        }
      }
    }
  });
  return 0;
}
