// dual_shift_dequantize on the GPU: weight = (q - z) * s * c, or (level[q] * s) * c, in float32, rounded once to `dtype`; the
// values of csrc/cpu/dual_shift_dequantize.h, bit for bit. Raw pointers, no torch.
#pragma once
#include <cuda_runtime.h>

#include <cstdint>

#include "../common/codebooks.h"
#include "../common/dtype.h"

namespace prism::cuda {

struct DualShiftDequantizeArgs {
  const uint8_t* codes = nullptr;          // [panels, blocks, bits, 64], aligned to 16 bytes
  const uint16_t* scale = nullptr;         // bfloat16 [panels, groups, 16]
  const uint8_t* zero = nullptr;           // [panels, groups, ZeroBytes(bits)]; unused unless kUniform
  const uint16_t* column_scale = nullptr;  // bfloat16 [k]
  int64_t n = 0, k = 0, group_size = 0;    // k below 2^31
  int bits = 0;
  Codebook codebook = Codebook::kUniform;
  DType dtype = DType::kFloat32;
  void* weight = nullptr;  // [n, k] of dtype
};

cudaError_t DualShiftDequantize(const DualShiftDequantizeArgs& args, cudaStream_t stream);

}  // namespace prism::cuda
