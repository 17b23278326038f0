#include "topk_mask.h"

#include <algorithm>
#include <vector>

#include "../common/dtype.h"
#include "isa.h"

namespace prism::cpu {
namespace generic {
namespace {

inline int64_t SelectKeys(const uint32_t* keys, int64_t size, int shift, uint32_t prefix, uint32_t* selected) {
  int64_t found = 0;
  for (int64_t i = 0; i < size; ++i) {
    selected[found] = keys[i];
    found += keys[i] >> shift == prefix;
  }
  return found;
}

}  // namespace
#include "topk_mask_kernels.inc"

}  // namespace generic

const TopkKernels* PickTopkMask() {
#if PRISM_X86
  return Pick<const TopkKernels*>("topk_mask",
                                  {&generic::kTopkKernels, &avx2::kTopkKernels, &avx512::kTopkKernels, nullptr});
#else
  return Pick<const TopkKernels*>("topk_mask", {&generic::kTopkKernels});
#endif
}

void TopkMask(const TopkKernels& kernels, const float* scores, int64_t size, int64_t keep,
              const TopkParallelFor& parallel_for, bool* mask) {
  if (keep == 0 || keep == size) {
    std::fill(mask, mask + size, keep != 0);
    return;
  }
  constexpr int64_t kChunk = int64_t{1} << 20;
  const int64_t chunks = CeilDiv(size, kChunk);
  std::vector<uint32_t> counts(chunks * kTopkBins);
  std::vector<int64_t> equal(chunks);
  const auto for_chunks = [&](const auto& body) {
    parallel_for(chunks, [&](int64_t first, int64_t last) {
      for (int64_t c = first; c < last; ++c) body(c, scores + c * kChunk, std::min(kChunk, size - c * kChunk));
    });
  };
  uint32_t threshold = 0;  // its bits from the digits found so far
  for (const TopkDigit digit : kTopkDigits) {
    for_chunks([&](int64_t c, const float* from, int64_t length) {
      uint32_t* histogram = &counts[c * kTopkBins];
      std::fill(histogram, histogram + kTopkBins, 0);
      kernels.count(from, length, digit, threshold, histogram);
    });
    // The bin of the keep-th largest; `keep` becomes its rank among the scores of that bin.
    for (int64_t bin = (int64_t{1} << digit.width) - 1;; --bin) {
      int64_t total = 0;
      for (int64_t c = 0; c < chunks; ++c) {
        equal[c] = counts[c * kTopkBins + bin];
        total += equal[c];
      }
      if (keep <= total) {
        threshold = threshold << digit.width | static_cast<uint32_t>(bin);
        break;
      }
      keep -= total;
    }
  }
  // Of the scores equal to the threshold the last `keep` stay: the first ones, counted through all chunks, are skipped.
  int64_t skip = -keep;
  for (const int64_t count : equal) skip += count;
  for (int64_t& count : equal) {
    const int64_t here = std::min(skip, count);
    count = here;
    skip -= here;
  }
  for_chunks([&](int64_t c, const float* from, int64_t length) {
    kernels.mark(from, length, threshold, equal[c], mask + (from - scores));
  });
}

}  // namespace prism::cpu
