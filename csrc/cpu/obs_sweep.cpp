#include "obs_sweep.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <vector>

#include "../common/grid.h"
#include "isa.h"
#include "unroll.h"
#include "vectors_generic.h"

namespace prism::cpu {
namespace generic {

constexpr int kLanes = 4;
constexpr int kVectors = 2;
namespace {
PRISM_DEFINE_UNROLL
typedef Floats4 Lanes;
typedef Words4 Ints;
}  // namespace
#include "obs_sweep_kernel.inc"

}  // namespace generic

void PackObsFactor(const float* factor, int64_t b, float* packed) {
  for (int64_t i = 0; i < b; ++i) {
    for (int64_t c = i / kObsStrip * kObsStrip; c < b; c += kObsStrip) {
      std::copy_n(factor + i * b + c, std::min(kObsStrip, b - c), packed + c * b + i * kObsStrip);
    }
  }
}

ObsSweepFn PickObsSweep() {
#if PRISM_X86
  return Pick<ObsSweepFn>("obs_sweep", {generic::ObsSweep, avx2::ObsSweep, avx512::ObsSweep, nullptr});
#else
  return Pick<ObsSweepFn>("obs_sweep", {generic::ObsSweep});
#endif
}

}  // namespace prism::cpu
