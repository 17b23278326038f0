// What happens to activations before a linear over a bitmap: quantization to 8 bits, and the order of fragments.
#pragma once
#include <cuda_runtime.h>

#include <cstdint>

#include "../common/dtype.h"

namespace prism::cuda {

struct ActivationArgs {
  const void* x = nullptr;  // [m, k] of dtype
  DType dtype = DType::kFloat32;
  int64_t m = 0, k = 0;
  const uint16_t* column_scale = nullptr;  // bfloat16 [k] that multiplies x, or null
};

// token_scale [m] = max|x c| / 127, or 1 where that is 0: of prism_kernels/reference/activations.py.
cudaError_t TokenScales(const ActivationArgs& args, float* token_scale, cudaStream_t stream);

// The activations of BitmapMmaKernel as operand B: fragments [ceil(m / (8 tiles)), blocks of 32 columns, tiles, 32 lanes]
// of 8 values of 16 bits: lane (g, t) of tile i holds columns 8t..8t+7 of the block and token 8 * (tiles * z + i) + g, 0 past
// m and k. One tile is row-major instead: [m, blocks of 32 columns, 32]. A value is x c rounded to `rounded` (kFloat16 or kBFloat16); with token_scale, round_half_even(x c / scale),
// -127 to 127, which is exact in both.
cudaError_t ArrangeFragments(const ActivationArgs& args, const float* token_scale, DType rounded, int tiles, void* fragments,
                             cudaStream_t stream);

// Their number of bytes.
int64_t FragmentBytes(int64_t m, int64_t k, int tiles);

}  // namespace prism::cuda
