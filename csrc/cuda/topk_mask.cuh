// topk_mask on the GPU; the same masks as csrc/cpu/topk_mask.h. Raw pointers, no torch.
#pragma once
#include <cuda_runtime.h>

#include <cstdint>

namespace prism::cuda {

// Each row's `keep` largest scores; 0 <= keep <= k.
cudaError_t TopkMaskRows(const float* scores,  // [num_rows, k]
                         int64_t num_rows, int64_t k, int64_t keep,
                         bool* mask,  // [num_rows, k]
                         cudaStream_t stream);

// The `keep` largest of all scores; 0 <= keep <= size.
int64_t TopkMaskWorkspace(int64_t size);  // bytes
cudaError_t TopkMaskAll(const float* scores, int64_t size, int64_t keep,
                        bool* mask,                // [size]
                        unsigned char* workspace,  // aligned to 8, all 0
                        cudaStream_t stream);

}  // namespace prism::cuda
