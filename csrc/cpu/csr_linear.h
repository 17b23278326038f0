// y = x @ weight^T + bias over a CSR weight; sums in float32, each output rounded once. Rows [begin, end) of the weight.
#pragma once
#include "csr.h"

namespace prism::cpu {

// One token's activations are float32 [k]. More than one: groups of `lanes` tokens, [groups, k, lanes] float32, where
// tokens past m are 0.
struct CsrLinearArgs {
  const float* x;
  const void* bias;  // [n] of dtype, or null
  void* y;           // [m, n] of dtype
  int64_t m, n;
  DType dtype;
};

struct CsrLinearKernel {
  int64_t lanes;
  void (*run)(const CsrRows& w, const CsrLinearArgs& args, int64_t begin, int64_t end);
};

namespace generic { void CsrLinear(const CsrRows&, const CsrLinearArgs&, int64_t, int64_t); }
namespace avx2 { void CsrLinear(const CsrRows&, const CsrLinearArgs&, int64_t, int64_t); }
namespace avx512 { void CsrLinear(const CsrRows&, const CsrLinearArgs&, int64_t, int64_t); }

CsrLinearKernel PickCsrLinear();

int64_t CsrActivations(const CsrLinearKernel& kernel, int64_t m, int64_t k);  // how many floats
// The groups [begin, end) of x [m, k] of dtype.
void PackCsrActivations(const CsrLinearKernel& kernel, const void* x, DType dtype, int64_t m, int64_t k, int64_t begin,
                        int64_t end, float* packed);

}  // namespace prism::cpu
