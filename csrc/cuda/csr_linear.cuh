// y = x @ weight^T + bias over a CSR weight on the GPU; sums in float32, each output rounded once.
#pragma once
#include "csr.cuh"

namespace prism::cuda {

struct CsrLinearArgs {
  const void* x;     // [m, k] of dtype
  const void* bias;  // [n] of dtype, or null
  void* y;           // [m, n] of dtype
  int64_t m;
  DType dtype;
  float* workspace;  // CsrLinearWorkspace() floats, aligned to 16 bytes
};

int64_t CsrLinearWorkspace(const CsrRows& weight, const void* x, int64_t m, DType dtype);  // floats
cudaError_t CsrLinear(const CsrRows& weight, const CsrLinearArgs& args, cudaStream_t stream);

}  // namespace prism::cuda
