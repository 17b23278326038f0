// topk_mask: exactly the `keep` largest of a run of scores. Among equal scores the earlier one is pruned first; NaN
// counts as -inf and -0 as 0. A radix select: three histograms, over the digits of the scores' keys from the top, find
// the key of the smallest score that stays; one more pass marks. The scores are not copied.
#pragma once
#include <cstdint>
#include <functional>

namespace prism::cpu {

// A digit of a key: `width` bits, `shift` bits from the end.
struct TopkDigit {
  int shift, width;
};
inline constexpr TopkDigit kTopkDigits[] = {{21, 11}, {10, 11}, {0, 10}};
inline constexpr int64_t kTopkBins = 1 << 11;
inline constexpr int64_t kTopkRun = 512;  // scores whose keys are made at once

struct TopkKernels {
  // histogram[digit of the key] += 1 for every score whose key's bits above the digit are `prefix`.
  void (*count)(const float* scores, int64_t size, TopkDigit digit, uint32_t prefix, uint32_t* histogram);
  // mask[i] = key > threshold, or key == threshold and at least `skip` equal ones come before i.
  void (*mark)(const float* scores, int64_t size, uint32_t threshold, int64_t skip, bool* mask);
};

namespace generic { extern const TopkKernels kTopkKernels; }
namespace avx2 { extern const TopkKernels kTopkKernels; }
namespace avx512 { extern const TopkKernels kTopkKernels; }
const TopkKernels* PickTopkMask();

// Calls body(begin, end) for disjoint ranges that cover [0, count), possibly at once.
using TopkParallelFor = std::function<void(int64_t count, const std::function<void(int64_t, int64_t)>& body)>;

// One run of `size` scores, 0 <= keep <= size.
void TopkMask(const TopkKernels& kernels, const float* scores, int64_t size, int64_t keep,
              const TopkParallelFor& parallel_for, bool* mask);

}  // namespace prism::cpu
