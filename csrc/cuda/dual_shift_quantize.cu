// A warp per row and group: extremes by shuffles, which no order changes, then the codes. A group is read twice, the second
// time from the first cache.
#include "dual_shift_quantize.cuh"

#include "../common/grid.h"
#include "common/launch.cuh"

namespace prism::cuda {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / 32;

struct Midpoints {
  float values[15];  // between neighbouring levels; infinity past the last
};

// weight / column_scale of element `at`, or 0 where it is pruned.
__device__ float Value(const DualShiftQuantizeArgs& a, int64_t at, const uint16_t* column_scale) {
  if (a.mask != nullptr && !a.mask[at]) return 0.0f;
  return __fdiv_rn(LoadFloat(a.weight, a.dtype, at), BFloat16ToFloat(*column_scale));
}

// bfloat16 scale of a group of levels: the largest magnitude, made finite and normal.
__device__ uint16_t LevelScale(float largest) {
  constexpr float kLargest = 0x1.fep127f, kSmallestNormal = 0x1p-126f;
  const uint16_t scale = FloatToBFloat16(largest < kLargest ? largest : kLargest);
  return BFloat16ToFloat(scale) >= kSmallestNormal ? scale : FloatToBFloat16(1.0f);
}

__global__ void __launch_bounds__(kThreads) DualShiftQuantizeKernel(DualShiftQuantizeArgs a, Midpoints midpoints) {
  const int lane = threadIdx.x % 32;
  const int64_t groups = CeilDiv(a.k, a.group_size), index = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / 32;
  if (index >= a.n * groups) return;
  const int64_t column = index % groups * a.group_size, first = index / groups * a.k + column;
  const int length = static_cast<int>(min(a.group_size, a.k - column));
  const uint16_t* const column_scale = a.column_scale + column;
  const bool uniform = a.codebook == Codebook::kUniform;
  float low = 0.0f, high = 0.0f;
  for (int j = lane; j < length; j += 32) {
    const float value = Value(a, first + j, column_scale + j);
    low = min(low, value);
    high = max(high, value);
  }
  for (int lanes = 16; lanes > 0; lanes /= 2) {
    low = min(low, __shfl_xor_sync(0xffffffffu, low, lanes));
    high = max(high, __shfl_xor_sync(0xffffffffu, high, lanes));
  }
  const float maxq = static_cast<float>((1 << a.bits) - 1);
  const Grid grid = uniform ? FindGrid(low, high, maxq) : Grid{LevelScale(max(-low, high)), 0};
  if (lane == 0) {
    a.scale[index] = grid.scale;
    if (uniform) a.zero[index] = grid.zero;
  }
  const float scale = BFloat16ToFloat(grid.scale);
  for (int j = lane; j < length; j += 32) {
    const float value = Value(a, first + j, column_scale + j);
    int code = 0;
    if (uniform) {
      code = RoundToGrid(value, scale, static_cast<float>(grid.zero), maxq);
    } else {
      const float ratio = __fdiv_rn(value, scale);
#pragma unroll
      for (int i = 0; i < 15; ++i) code += midpoints.values[i] < ratio ? 1 : 0;
    }
    a.codes[first + j] = static_cast<uint8_t>(code);
  }
}

}  // namespace

cudaError_t DualShiftQuantize(const DualShiftQuantizeArgs& a, cudaStream_t stream) {
  const int64_t warps = a.k == 0 ? 0 : a.n * CeilDiv(a.k, a.group_size);
  if (warps == 0) return cudaSuccess;
  if (a.k > INT32_MAX) return cudaErrorInvalidValue;
  Midpoints midpoints;
  const float* levels = CodebookLevels(a.codebook);
  const int size = CodebookSize(a.codebook);
  for (int i = 0; i < 15; ++i) midpoints.values[i] = i + 1 < size ? (levels[i] + levels[i + 1]) / 2.0f : INFINITY;
  return Launch(DualShiftQuantizeKernel, static_cast<unsigned>(CeilDiv(warps, int64_t{kWarps})), kThreads, 0, stream, a, midpoints);
}

}  // namespace prism::cuda
