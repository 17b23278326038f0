#include "nm_mask.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "../common/dtype.h"
#include "isa.h"

namespace prism::cpu {
namespace generic {

void NmMask(const float* scores, int64_t num_rows, int64_t k, int64_t n_keep, int64_t m, bool* mask) {
  std::vector<int64_t> order(static_cast<size_t>(std::min(m, k)));
  for (int64_t row = 0; row < num_rows; ++row, scores += k, mask += k) {
    std::fill(mask, mask + k, false);
    for (int64_t begin = 0; begin < k; begin += m) {
      const int64_t length = std::min(m, k - begin);
      const int64_t keep = CeilDiv(n_keep * length, m);
      const auto value = [&](int64_t i) {
        const float score = scores[begin + i];
        return std::isnan(score) ? -std::numeric_limits<float>::infinity() : score;
      };
      std::iota(order.begin(), order.begin() + length, int64_t{0});
      std::partial_sort(order.begin(), order.begin() + keep, order.begin() + length, [&](int64_t a, int64_t b) {
        return value(a) != value(b) ? value(a) > value(b) : a > b;
      });
      for (int64_t i = 0; i < keep; ++i) mask[begin + order[i]] = true;
    }
  }
}

}  // namespace generic

NmMaskFn PickNmMask() {
#if PRISM_X86
  return Pick<NmMaskFn>("nm_mask", {generic::NmMask, avx2::NmMask, avx512::NmMask, nullptr});
#else
  return Pick<NmMaskFn>("nm_mask", {generic::NmMask});
#endif
}

}  // namespace prism::cpu
