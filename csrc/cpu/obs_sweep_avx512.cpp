#include <algorithm>
#include <cstring>
#include <limits>
#include <vector>

#include "../common/grid.h"
#include "isa.h"
#include "obs_sweep.h"
#include "transpose_avx512.h"

#if PRISM_X86
PRISM_TARGET_BEGIN(PRISM_TARGET_AVX512)
namespace prism::cpu::avx512 {

constexpr int kLanes = 16;
constexpr int kVectors = 4;
namespace {
typedef float Lanes __attribute__((vector_size(4 * kLanes)));
}  // namespace
#include "obs_sweep_kernel.inc"

}  // namespace prism::cpu::avx512
PRISM_TARGET_END
#endif
