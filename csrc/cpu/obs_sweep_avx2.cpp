#include <algorithm>
#include <cstring>
#include <limits>
#include <vector>

#include "../common/grid.h"
#include "isa.h"
#include "obs_sweep.h"
#include "transpose_avx2.h"

#if PRISM_X86
PRISM_TARGET_BEGIN(PRISM_TARGET_AVX2)
namespace prism::cpu::avx2 {

constexpr int kLanes = 8;
constexpr int kVectors = 2;
namespace {
typedef float Lanes __attribute__((vector_size(4 * kLanes)));
}  // namespace
#include "obs_sweep_kernel.inc"

}  // namespace prism::cpu::avx2
PRISM_TARGET_END
#endif
