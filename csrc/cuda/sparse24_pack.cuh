// sparse24_pack and sparse24_unpack on the GPU (csrc/cuda/common/sparse24.cuh). T = ceil(k / 64), P = ceil(n / 16). Weights are
// 16-bit floats of any kind, moved as bits, or codes of 4 bits, one per byte.
#pragma once
#include <cuda_runtime.h>

#include <cstdint>

namespace prism::cuda {

cudaError_t Sparse24Pack(const uint16_t* weight, const bool* mask,  // [n, k]
                         int64_t n, int64_t k,
                         uint16_t* values,   // [P, T, 2, 32, 8]
                         uint32_t* columns,  // [P, T, 32]
                         cudaStream_t stream);
cudaError_t Sparse24PackCodes(const uint8_t* codes, const bool* mask, int64_t n, int64_t k,
                              uint32_t* words,  // [P, T, 32, 2]
                              uint32_t* columns, cudaStream_t stream);

cudaError_t Sparse24Unpack(const uint16_t* values, const uint32_t* columns, int64_t n, int64_t k, uint16_t* weight,
                           cudaStream_t stream);
cudaError_t Sparse24UnpackCodes(const uint32_t* words, const uint32_t* columns, int64_t n, int64_t k, uint8_t* codes,
                                cudaStream_t stream);

}  // namespace prism::cuda
