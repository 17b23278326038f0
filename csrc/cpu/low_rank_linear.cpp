#include "low_rank_linear.h"

#include <algorithm>

#include "isa.h"
#include "unroll.h"

namespace prism::cpu {
namespace generic {
namespace {

PRISM_DEFINE_UNROLL

typedef float Lanes __attribute__((vector_size(16)));
constexpr int kLanes = 4;

inline Lanes Zero() { return Lanes{}; }
inline Lanes Add(Lanes a, Lanes b) { return a + b; }
inline Lanes MulAdd(Lanes a, Lanes b, Lanes c) { return a * b + c; }
inline float Total(Lanes lanes) { return (lanes[0] + lanes[2]) + (lanes[1] + lanes[3]); }

inline Lanes LoadTyped(const void* data, DType dtype, int64_t index, int64_t count) {
  Lanes lanes{};
  for (int64_t i = 0; i < count; ++i) lanes[i] = LoadFloat(data, dtype, index + i);
  return lanes;
}

template <DType kDType>
inline Lanes Load(const void* data, int64_t index) {
  return Lanes{LoadFloat(data, kDType, index), LoadFloat(data, kDType, index + 1), LoadFloat(data, kDType, index + 2),
               LoadFloat(data, kDType, index + 3)};
}

#include "low_rank_linear_rows.inc"

}  // namespace

void LowRankLinear(const DenseRows& w, const float* x, int64_t m, int64_t begin, int64_t end, float* out, int64_t n) {
  Run(w, x, m, begin, end, out, n);
}

}  // namespace generic

LowRankLinearFn PickLowRankLinear() {
  using Fn = LowRankLinearFn;
#if PRISM_X86
  return Pick<Fn>("low_rank_linear", {generic::LowRankLinear, avx2::LowRankLinear, avx512::LowRankLinear, nullptr});
#else
  return Pick<Fn>("low_rank_linear", {generic::LowRankLinear});
#endif
}

}  // namespace prism::cpu
