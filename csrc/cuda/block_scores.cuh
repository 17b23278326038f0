// block_scores on the GPU; the same sums, in the same order, as csrc/cpu/block_scores.h. Raw pointers, no torch.
#pragma once
#include <cuda_runtime.h>

#include <cstdint>

namespace prism::cuda {
cudaError_t BlockScores(const float* scores,  // [n, k]
                        const bool* mask,     // [n, k], or null
                        int64_t n, int64_t k,
                        float* sums,  // [ceil(n / 16), ceil(k / 16)]
                        cudaStream_t stream);
}  // namespace prism::cuda
