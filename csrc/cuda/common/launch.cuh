// Launches, dynamic shared memory and the barrier of a whole grid, the same for nvcc and for the CPU emulator of
// tests/csrc/emulator (-DPRISM_CUDA_EMULATOR). Kernels take all shared memory through PRISM_DYNAMIC_SMEM.
#pragma once
#include <cuda_runtime.h>

#include <cstdint>

#ifdef PRISM_CUDA_EMULATOR
#include "launch.h"
#else
#include <cooperative_groups.h>

// Declares `name`, a pointer to this block's dynamic shared memory, aligned to 16 bytes.
#define PRISM_DYNAMIC_SMEM(name)                                     \
  extern __shared__ __align__(16) unsigned char prism_dynamic_smem[]; \
  unsigned char* const name = prism_dynamic_smem

namespace prism::cuda {

inline constexpr size_t kSharedBytesWithoutAsking = 48 * 1024;

template <class... Parameters>
cudaError_t AllowSharedBytes(void (*kernel)(Parameters...), size_t shared_bytes) {
  if (shared_bytes <= kSharedBytesWithoutAsking) return cudaSuccess;
  return cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize,
                              static_cast<int>(shared_bytes));
}

template <class... Parameters, class... Arguments>
cudaError_t Launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t stream,
                   Arguments... arguments) {
  if (const cudaError_t error = AllowSharedBytes(kernel, shared_bytes); error != cudaSuccess) return error;
  kernel<<<grid, block, shared_bytes, stream>>>(static_cast<Parameters>(arguments)...);
  return cudaGetLastError();
}

// All blocks of the grid are resident at once and may meet at GridBarrier(); `grid` is at most CooperativeBlocks().
template <class... Parameters, class... Arguments>
cudaError_t LaunchCooperative(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes,
                              cudaStream_t stream, Arguments... arguments) {
  if (const cudaError_t error = AllowSharedBytes(kernel, shared_bytes); error != cudaSuccess) return error;
  return [&](Parameters... parameters) {
    void* pointers[] = {static_cast<void*>(&parameters)...};
    return cudaLaunchCooperativeKernel(reinterpret_cast<const void*>(kernel), grid, block, pointers, shared_bytes, stream);
  }(static_cast<Parameters>(arguments)...);
}

inline int NumMultiprocessors() {
  int device = 0, count = 0;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device);
  return count;
}

// Of a block that asks for them.
inline int MostSharedBytes() {
  int device = 0, bytes = 0;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  return bytes;
}

// The number of blocks of this kernel that the device holds at once.
template <class... Parameters>
cudaError_t CooperativeBlocks(void (*kernel)(Parameters...), int threads, size_t shared_bytes, int* blocks) {
  if (const cudaError_t error = AllowSharedBytes(kernel, shared_bytes); error != cudaSuccess) return error;
  int per_multiprocessor = 0;
  const cudaError_t error = cudaOccupancyMaxActiveBlocksPerMultiprocessor(
      &per_multiprocessor, reinterpret_cast<const void*>(kernel), threads, shared_bytes);
  *blocks = per_multiprocessor * NumMultiprocessors();
  return error;
}

// Every thread of every block of a cooperative launch; what was written before is seen after.
__device__ inline void GridBarrier() { cooperative_groups::this_grid().sync(); }

}  // namespace prism::cuda
#endif
