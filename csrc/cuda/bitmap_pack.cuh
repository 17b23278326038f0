// bitmap_pack on the GPU; the contract of csrc/cpu/bitmap_pack.h in two steps, because only the first knows how many
// values there are. Runs once per weight.
#pragma once
#include <cuda_runtime.h>

#include <cstdint>

namespace prism::cuda {

struct BitmapPackArgs {
  const void* weight = nullptr;  // [n, k] of element_bytes (2 or 4), float32, float16 or bfloat16
  const bool* mask = nullptr;    // [n, k], true = kept; null keeps what differs from 0
  int64_t n = 0, k = 0, element_bytes = 0;
  uint8_t* bitmap = nullptr;         // [panels, ceil(k / 2), 4]
  int64_t* panel_offsets = nullptr;  // [panels + 1]
  void* values = nullptr;            // [panel_offsets[panels]]
};

// Writes bitmap and panel_offsets.
cudaError_t BitmapMark(const BitmapPackArgs& args, cudaStream_t stream);
// Writes values.
cudaError_t BitmapGather(const BitmapPackArgs& args, cudaStream_t stream);

}  // namespace prism::cuda
