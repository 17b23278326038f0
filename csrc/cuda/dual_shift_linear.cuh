// dual_shift_linear on the GPU: y = x @ weight^T + bias, weight = (q - z) * s * c or level[q] * s * c as in
// prism_kernels/reference/dual_shift_linear.py. Raw pointers, no torch.
//
// 16-bit x and groups of whole blocks of 32 columns take tensor cores (common/panel_mma.cuh): x * c is rounded to the dtype
// of x (in float16 it must stay below 65504), uniform codes are exact, levels are rounded to the dtype of x, sums are
// float32. activation_bits = 8 (whole numbers as bfloat16, of x of any dtype) takes them too, after QuantizeActivations.
// float32 x and other groups take one plain kernel on float32 cores.
#pragma once
#include <cuda_runtime.h>

#include <cstdint>

#include "../common/codebooks.h"
#include "../common/dtype.h"

namespace prism::cuda {

struct DualShiftLinearArgs {
  const uint8_t* codes = nullptr;   // [panels, blocks, bits, 64], aligned to 16 bytes
  const uint16_t* scale = nullptr;  // bfloat16 [panels, groups, 16], aligned to 4 bytes
  const uint8_t* zero = nullptr;    // [panels, groups, ZeroBytes(bits)], aligned to 2 bytes; null unless kUniform
  int bits = 0;
  Codebook codebook = Codebook::kUniform;
  int64_t group_size = 0;
  const void* x = nullptr;                 // [m, k] of x_dtype
  DType x_dtype = DType::kBFloat16;        // whole numbers of activation_bits = 8: kBFloat16
  const uint16_t* column_scale = nullptr;  // bfloat16 [k]; null: 1, or already in x
  const float* token_scale = nullptr;      // [m] of activation_bits = 8, or null
  const void* bias = nullptr;              // [n] of y_dtype, or null
  void* y = nullptr;                       // [m, n] of y_dtype
  DType y_dtype = DType::kBFloat16;
  int64_t m = 0, n = 0, k = 0;  // at least 1
  float* workspace = nullptr;   // DualShiftLinearWorkspace() floats
};

// Floats of scratch that a call needs.
int64_t DualShiftLinearWorkspace(const DualShiftLinearArgs& args);

cudaError_t DualShiftLinear(const DualShiftLinearArgs& args, cudaStream_t stream);

}  // namespace prism::cuda
