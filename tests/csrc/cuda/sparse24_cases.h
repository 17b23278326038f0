// 2:4 weights for the tests of the sparse24 kernels, made without them.
#pragma once
#include <algorithm>
#include <vector>

#include "check.h"
#include "cuda/common/sparse24.cuh"

namespace prism::test {

// A 2:4 mask of n rows and k columns: each quad keeps `least` to 2 of its columns.
inline Buffer<bool> QuadMask(int64_t n, int64_t k, int least) {
  Buffer<bool> mask(n * k);
  for (int64_t row = 0; row < n; ++row) {
    for (int64_t column = 0; column < k; column += 4) {
      const int64_t width = std::min<int64_t>(4, k - column);
      std::vector<int> order{0, 1, 2, 3};
      order.resize(static_cast<size_t>(width));
      std::shuffle(order.begin(), order.end(), Random());
      const auto kept = std::min<int64_t>(RandomInt(least, 2), width);
      for (int64_t i = 0; i < width; ++i) mask[row * k + column + order[static_cast<size_t>(i)]] = i < kept;
    }
  }
  return mask;
}

inline int64_t PackedPairs(int64_t n, int64_t k) { return NumPanels(n) * NumSparseTiles(k) * 2 * 32 * 4; }
inline int64_t PackedCodeWords(int64_t n, int64_t k) { return NumPanels(n) * NumSparseTiles(k) * 32 * 2; }
inline int64_t PackedColumnWords(int64_t n, int64_t k) { return NumPanels(n) * NumSparseTiles(k) * 32; }

}  // namespace prism::test
