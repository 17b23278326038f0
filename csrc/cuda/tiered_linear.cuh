// y = x @ weight^T + bias over a weight in tiles of three tiers, on the GPU; sums in float32, each output rounded once.
#pragma once
#include "tiered.cuh"

namespace prism::cuda {

struct TieredLinearArgs {
  const void* x;     // [m, k] of dtype
  const void* bias;  // [n] of dtype, or null
  void* y;           // [m, n] of dtype
  int64_t m;
  DType dtype;
};

cudaError_t TieredLinear(const TieredBlocks& weight, const TieredLinearArgs& args, cudaStream_t stream);

}  // namespace prism::cuda
