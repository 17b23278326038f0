#include "csr_linear.h"

#include <cstring>

#include "isa.h"
#include "unroll.h"

namespace prism::cpu {
namespace generic {
namespace {

PRISM_DEFINE_UNROLL

typedef float Lanes __attribute__((vector_size(16)));
constexpr int kLanes = 4;

inline Lanes Broadcast(float value) { return Lanes{value, value, value, value}; }
inline Lanes MulAdd(Lanes a, Lanes b, Lanes c) { return a * b + c; }

float DotRow(const CsrRows& w, const float* x, int64_t begin, int64_t end) {
  float even = 0.0f, odd = 0.0f;
  int64_t i = begin;
  for (; i + 2 <= end; i += 2) {
    even += LoadFloat(w.values, w.dtype, i) * x[w.Column(i)];
    odd += LoadFloat(w.values, w.dtype, i + 1) * x[w.Column(i + 1)];
  }
  if (i < end) even += LoadFloat(w.values, w.dtype, i) * x[w.Column(i)];
  return even + odd;
}

#include "csr_linear_rows.inc"

}  // namespace

void CsrLinear(const CsrRows& w, const CsrLinearArgs& args, int64_t begin, int64_t end) { RunRows(w, args, begin, end); }

}  // namespace generic

CsrLinearKernel PickCsrLinear() {
  using Run = decltype(CsrLinearKernel::run);
#if PRISM_X86
  const Run run = Pick<Run>("csr_linear", {generic::CsrLinear, avx2::CsrLinear, avx512::CsrLinear, nullptr});
  return {run == avx512::CsrLinear ? 16 : run == avx2::CsrLinear ? 8 : generic::kLanes, run};
#else
  return {generic::kLanes, Pick<Run>("csr_linear", {generic::CsrLinear})};
#endif
}

int64_t CsrActivations(const CsrLinearKernel& kernel, int64_t m, int64_t k) {
  return m == 1 ? k : CeilDiv(m, kernel.lanes) * kernel.lanes * k;
}

void PackCsrActivations(const CsrLinearKernel& kernel, const void* x, DType dtype, int64_t m, int64_t k, int64_t begin,
                        int64_t end, float* packed) {
  if (m == 1) {
    for (int64_t j = 0; j < k; ++j) packed[j] = LoadFloat(x, dtype, j);
    return;
  }
  for (int64_t g = begin; g < end; ++g) {
    float* out = packed + g * kernel.lanes * k;
    for (int64_t lane = 0; lane < kernel.lanes; ++lane) {
      const int64_t t = g * kernel.lanes + lane;
      for (int64_t j = 0; j < k; ++j) out[j * kernel.lanes + lane] = t < m ? LoadFloat(x, dtype, t * k + j) : 0.0f;
    }
  }
}

}  // namespace prism::cpu
