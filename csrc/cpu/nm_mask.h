// nm_mask: in every `m` consecutive scores of a row keep the `n_keep` largest.
// Among equal scores the lower index is pruned first; NaN ranks below every number.
// A last group of r < m scores keeps ceil(n_keep * r / m).
#pragma once
#include <cstdint>

namespace prism::cpu {
using NmMaskFn = void (*)(const float* scores,  // [num_rows, k]
                          int64_t num_rows, int64_t k, int64_t n_keep, int64_t m,
                          bool* mask);  // [num_rows, k], true = kept
namespace generic { void NmMask(const float*, int64_t, int64_t, int64_t, int64_t, bool*); }
namespace avx2 { void NmMask(const float*, int64_t, int64_t, int64_t, int64_t, bool*); }
namespace avx512 { void NmMask(const float*, int64_t, int64_t, int64_t, int64_t, bool*); }
NmMaskFn PickNmMask();
}  // namespace prism::cpu
