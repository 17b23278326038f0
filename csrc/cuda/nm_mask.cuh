// nm_mask on the GPU; same contract as csrc/cpu/nm_mask.h. Raw pointers, no torch.
#pragma once
#include <cuda_runtime.h>

#include <cstdint>

namespace prism::cuda {
cudaError_t NmMask(const float* scores,  // [num_rows, k]
                   int64_t num_rows, int64_t k, int64_t n_keep, int64_t m,
                   bool* mask,  // [num_rows, k]
                   cudaStream_t stream);
}  // namespace prism::cuda
