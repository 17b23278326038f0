// The dense weight of tiles of three tiers, in the dtype of its values. Raw pointers, no torch.
#pragma once
#include "tiered.cuh"

namespace prism::cuda {
cudaError_t TieredUnpack(const TieredBlocks& weight, void* dense, cudaStream_t stream);  // dense [n, k]
}  // namespace prism::cuda
