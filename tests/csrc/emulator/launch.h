// The emulator's half of csrc/cuda/common/launch.cuh.
#pragma once
#include "cuda_runtime.h"

#define PRISM_DYNAMIC_SMEM(name) unsigned char* const name = prism::emulator::Current().block->shared_memory.get()

namespace prism::cuda {

inline constexpr size_t kLargestSharedBytes = 227 * 1024;  // of an H200; the emulator is not stricter

template <class... Parameters, class... Arguments>
cudaError_t Launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t,
                   Arguments... arguments) {
  if (shared_bytes > kLargestSharedBytes || block.x * block.y * block.z > 1024) return cudaErrorInvalidValue;
  for (const dim3 index : emulator::BlocksOf(grid)) {
    emulator::Run(grid, block, shared_bytes, {index}, [=] { kernel(arguments...); });
  }
  return cudaSuccess;
}

template <class... Parameters, class... Arguments>
cudaError_t LaunchCooperative(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t,
                              Arguments... arguments) {
  if (shared_bytes > kLargestSharedBytes || block.x * block.y * block.z > 1024) return cudaErrorInvalidValue;
  emulator::Run(grid, block, shared_bytes, emulator::BlocksOf(grid), [=] { kernel(arguments...); });
  return cudaSuccess;
}

// As many blocks as a cooperative launch may have; few, so that tests have more work than blocks.
template <class... Parameters>
cudaError_t CooperativeBlocks(void (*)(Parameters...), int, size_t, int* blocks) {
  *blocks = 3;
  return cudaSuccess;
}

inline int NumMultiprocessors() { return 3; }
inline int MostSharedBytes() { return static_cast<int>(kLargestSharedBytes); }

__device__ inline void GridBarrier() { emulator::SwitchToScheduler(emulator::State::kAtGridBarrier); }

}  // namespace prism::cuda
