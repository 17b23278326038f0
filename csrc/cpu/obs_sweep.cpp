#include "obs_sweep.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <vector>

#include "../common/grid.h"
#include "isa.h"

namespace prism::cpu {
namespace generic {

constexpr int kLanes = 4;
constexpr int kVectors = 2;
namespace {
typedef float Lanes __attribute__((vector_size(4 * kLanes)));
inline void TransposeLanes(Lanes (&lanes)[kLanes]) {
  for (int i = 0; i < kLanes; ++i) {
    for (int j = 0; j < i; ++j) {
      const float kept = lanes[i][j];
      lanes[i][j] = lanes[j][i];
      lanes[j][i] = kept;
    }
  }
}
}  // namespace
#include "obs_sweep_kernel.inc"

}  // namespace generic

void PackObsFactor(const float* factor, int64_t b, float* packed) {
  for (int64_t c = 0; c < b; ++c) {
    float* column = packed + c / kObsStrip * b * kObsStrip + c % kObsStrip;
    for (int64_t i = 0; i <= c; ++i) column[i * kObsStrip] = factor[i * b + c];
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
