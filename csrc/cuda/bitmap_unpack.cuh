// bitmap_unpack on the GPU; the contract of csrc/cpu/bitmap_unpack.h. What panel_offsets promise beyond the values is 0.
#pragma once
#include <cuda_runtime.h>

#include <cstdint>

namespace prism::cuda {

struct BitmapUnpackArgs {
  const uint8_t* bitmap = nullptr;         // [panels, ceil(k / 2), 4], aligned to 4 bytes
  const void* values = nullptr;            // [size] of element_bytes (2 or 4)
  const int64_t* panel_offsets = nullptr;  // [panels + 1]
  int64_t size = 0, n = 0, k = 0, element_bytes = 0;
  void* weight = nullptr;  // [n, k]
};

cudaError_t BitmapUnpack(const BitmapUnpackArgs& args, cudaStream_t stream);

}  // namespace prism::cuda
