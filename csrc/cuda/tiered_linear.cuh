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
  void* scratch = nullptr;  // TieredLinearScratch() elements of dtype, aligned to 4 bytes
};

// What a call needs where rows of x are no whole tiles, or x begins at an odd address; 0 elsewhere.
int64_t TieredLinearScratch(const TieredBlocks& weight, const TieredLinearArgs& args);

cudaError_t TieredLinear(const TieredBlocks& weight, TieredLinearArgs args, cudaStream_t stream);

}  // namespace prism::cuda
