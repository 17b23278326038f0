// dual_shift_quantize on the GPU: codes, group scales and zero points of weight / column_scale; the arithmetic of
// csrc/common/grid.h, and of prism_kernels/reference/codebooks.py for levels, bit for bit. Raw pointers, no torch.
#pragma once
#include <cuda_runtime.h>

#include <cstdint>

#include "../common/codebooks.h"
#include "../common/dtype.h"

namespace prism::cuda {

struct DualShiftQuantizeArgs {
  const void* weight = nullptr;            // [n, k] of dtype
  const bool* mask = nullptr;              // [n, k], true = kept; null keeps all
  const uint16_t* column_scale = nullptr;  // bfloat16 [k]
  int64_t n = 0, k = 0, group_size = 0;  // k below 2^31
  DType dtype = DType::kFloat32;
  int bits = 0;
  Codebook codebook = Codebook::kUniform;
  uint8_t* codes = nullptr;   // [n, k]
  uint16_t* scale = nullptr;  // bfloat16 [n, groups]
  uint8_t* zero = nullptr;    // [n, groups]; untouched unless kUniform
};

cudaError_t DualShiftQuantize(const DualShiftQuantizeArgs& args, cudaStream_t stream);

}  // namespace prism::cuda
