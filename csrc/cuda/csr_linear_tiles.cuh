// csr_linear for two tokens and more: survivors become dense tiles in shared memory, tensor cores multiply them.
#pragma once
#include "csr_linear.cuh"

namespace prism::cuda {

// Whether tiles serve this call: they need the values and x in one 16-bit dtype, streams aligned to 16 bytes, and enough
// survivors to be worth clearing and multiplying whole tiles.
bool CsrTilesServe(const CsrRows& weight, int64_t m, DType dtype);
int64_t CsrTilesWorkspace(const CsrRows& weight, const void* x, int64_t m);  // floats
cudaError_t CsrLinearTiles(const CsrRows& weight, const CsrLinearArgs& args, cudaStream_t stream);

}  // namespace prism::cuda
