// bitmap_dual_shift_linear on the GPU: y = x @ weight^T + bias over the weight (q - z) * s * c, or level[q] * s * c, pruned 0.
// On tensor cores x * c is rounded to the 16-bit dtype of x, levels are too, and a sum of q - z is exact but for its
// float32 additions; with 8 activation bits x * c are whole numbers times a scale per token.
// Masks that promise more codes than are stored give any result, but no access outside of the tensors.
#pragma once
#include <cuda_runtime.h>

#include <cstdint>

#include "../common/codebooks.h"
#include "../common/dtype.h"

namespace prism::cuda {

struct BitmapDualShiftLinearArgs {
  const void* x = nullptr;                 // [m, k] of dtype
  const uint8_t* bitmap = nullptr;         // [panels, ceil(k / 4), 8], aligned to 4 bytes
  const uint8_t* codes = nullptr;          // [size]
  const int64_t* panel_offsets = nullptr;  // [panels + 1]
  const uint16_t* scale = nullptr;         // bfloat16 [panels, groups, 16]
  const uint8_t* zero = nullptr;           // [panels, groups, ZeroBytes(bits)], not read where the codebook has none
  const uint16_t* column_scale = nullptr;  // bfloat16 [k]
  const void* bias = nullptr;              // [n] of dtype, or null
  DType dtype = DType::kFloat32;
  int64_t size = 0, m = 0, n = 0, k = 0, group_size = 0, groups = 0;
  int bits = 0;
  Codebook codebook = Codebook::kUniform;
  bool quantized = false;   // 8 activation bits; uniform codebooks only
  void* y = nullptr;        // [m, n] of dtype; m, n and k are at least 1
  void* scratch = nullptr;  // BitmapDualShiftLinearScratchBytes(args), aligned to 16 bytes
};

int64_t BitmapDualShiftLinearScratchBytes(const BitmapDualShiftLinearArgs& args);
cudaError_t BitmapDualShiftLinear(const BitmapDualShiftLinearArgs& args, cudaStream_t stream);

}  // namespace prism::cuda
