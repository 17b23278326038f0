// bitmap_linear on the GPU: y = x @ weight^T + bias, summed in float32 and rounded once. Masks that promise more values than
// are stored give any result, but no access outside of the tensors.
#pragma once
#include <cuda_runtime.h>

#include <cstdint>

#include "../common/dtype.h"

namespace prism::cuda {

struct BitmapLinearArgs {
  const void* x = nullptr;                 // [m, k] of x_dtype
  const uint8_t* bitmap = nullptr;         // [panels, ceil(k / 2), 4], aligned to 4 bytes
  const void* values = nullptr;            // [size] of values_dtype
  const int64_t* panel_offsets = nullptr;  // [panels + 1]
  const void* bias = nullptr;              // [n] of x_dtype, or null
  DType x_dtype = DType::kFloat32, values_dtype = DType::kFloat32;
  int64_t size = 0, m = 0, n = 0, k = 0;
  void* y = nullptr;        // [m, n] of x_dtype; m, n and k are at least 1
  void* scratch = nullptr;  // BitmapLinearScratchBytes(args), aligned to 16 bytes
};

int64_t BitmapLinearScratchBytes(const BitmapLinearArgs& args);
cudaError_t BitmapLinear(const BitmapLinearArgs& args, cudaStream_t stream);

}  // namespace prism::cuda
