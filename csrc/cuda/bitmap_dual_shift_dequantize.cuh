// bitmap_dual_shift_dequantize on the GPU: (q - z) * s * c, or (level[q] * s) * c, in float32, rounded once; a pruned
// weight is +0. What panel_offsets promise beyond the codes is code 0.
#pragma once
#include <cuda_runtime.h>

#include <cstdint>

#include "../common/codebooks.h"
#include "../common/dtype.h"

namespace prism::cuda {

struct BitmapDualShiftDequantizeArgs {
  const uint8_t* bitmap = nullptr;         // [panels, ceil(k / 4), 8], aligned to 4 bytes
  const uint8_t* codes = nullptr;          // [size]
  const int64_t* panel_offsets = nullptr;  // [panels + 1]
  const uint16_t* scale = nullptr;         // bfloat16 [panels, groups, 16]
  const uint8_t* zero = nullptr;           // [panels, groups, ZeroBytes(bits)], not read where the codebook has none
  const uint16_t* column_scale = nullptr;  // bfloat16 [k]
  int64_t size = 0, n = 0, k = 0, group_size = 0, groups = 0;
  int bits = 0;
  Codebook codebook = Codebook::kUniform;
  DType dtype = DType::kFloat32;
  void* weight = nullptr;  // [n, k] of dtype
};

cudaError_t BitmapDualShiftDequantize(const BitmapDualShiftDequantizeArgs& args, cudaStream_t stream);

}  // namespace prism::cuda
