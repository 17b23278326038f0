// The dense rows of a CSR weight on the GPU, in the dtype of its values. Raw pointers, no torch.
#pragma once
#include "csr.cuh"

namespace prism::cuda {
cudaError_t CsrUnpack(const CsrRows& weight, void* dense, cudaStream_t stream);  // dense [n, k]
}  // namespace prism::cuda
