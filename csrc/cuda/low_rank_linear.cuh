// y = (x @ a^T) @ b^T + bias on the GPU; both products are summed in float32, what lies between stays float32, each output
// is rounded once.
#pragma once
#include <cuda_runtime.h>

#include <cstdint>

#include "../common/dtype.h"

namespace prism::cuda {

struct LowRankLinearArgs {
  const void* x;     // [m, k] of dtype
  const void* a;     // [rank, k] of a_dtype
  const void* b;     // [n, rank] of b_dtype
  const void* bias;  // [n] of dtype, or null
  void* y;           // [m, n] of dtype
  float* hidden;     // [m, rank], written on the way; aligned to 16 bytes
  int64_t m, n, k, rank;
  DType dtype, a_dtype, b_dtype;
};

cudaError_t LowRankLinear(const LowRankLinearArgs& args, cudaStream_t stream);

}  // namespace prism::cuda
