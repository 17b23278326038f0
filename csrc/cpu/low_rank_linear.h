// Products of row-major matrices with few tokens, of which a low-rank linear is two: out[t, row] = sum over j of
// w[row, j] * x[t, j] in float32, for rows [begin, end). A sum does not depend on that range.
#pragma once
#include "../common/dtype.h"

namespace prism::cpu {

struct DenseRows {
  const void* values;  // [n, k] of dtype
  int64_t k;
  DType dtype;
};

using LowRankLinearFn = void (*)(const DenseRows& w, const float* x,  // [m, k]
                                 int64_t m, int64_t begin, int64_t end, float* out,  // [m, n]
                                 int64_t n);
namespace generic { void LowRankLinear(const DenseRows&, const float*, int64_t, int64_t, int64_t, float*, int64_t); }
namespace avx2 { void LowRankLinear(const DenseRows&, const float*, int64_t, int64_t, int64_t, float*, int64_t); }
namespace avx512 { void LowRankLinear(const DenseRows&, const float*, int64_t, int64_t, int64_t, float*, int64_t); }

LowRankLinearFn PickLowRankLinear();

}  // namespace prism::cpu
