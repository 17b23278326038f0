// bitmap_dual_shift_pack on the GPU; the contract of csrc/cpu/bitmap_dual_shift_pack.h in two steps, because only the
// first knows how many bytes there are. Runs once per weight.
#pragma once
#include <cuda_runtime.h>

#include <cstdint>

namespace prism::cuda {

struct BitmapDualShiftPackArgs {
  const uint8_t* codes = nullptr;  // [n, k], one code per byte, of which the low `bits` bits are stored
  const bool* mask = nullptr;      // [n, k], true = kept
  int64_t n = 0, k = 0;
  int bits = 0;
  uint8_t* bitmap = nullptr;         // [panels, ceil(k / 4), 8]
  int64_t* panel_offsets = nullptr;  // [panels + 1]
  uint8_t* packed = nullptr;         // [panel_offsets[panels]]
};

// Writes bitmap and panel_offsets.
cudaError_t BitmapDualShiftMark(const BitmapDualShiftPackArgs& args, cudaStream_t stream);
// Writes packed.
cudaError_t BitmapDualShiftGather(const BitmapDualShiftPackArgs& args, cudaStream_t stream);

}  // namespace prism::cuda
