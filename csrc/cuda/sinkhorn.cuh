// sinkhorn on the GPU; the factors of csrc/cpu/sinkhorn.h within rounding. Raw pointers, no torch.
#pragma once
#include <cuda_runtime.h>

#include <cstdint>

#include "../common/dtype.h"

namespace prism::cuda {

enum class SinkhornVariant { kSinq, kPrism, kRms };

struct SinkhornArgs {
  const void* weight;  // [batch, n, k] of dtype
  DType dtype;         // kFloat32 or kBFloat16
  const bool* mask;    // [batch, n, k], true = kept; null keeps all
  int64_t batch, n, k;
  SinkhornVariant variant;
  int64_t iterations;
  float* column_factor;      // [batch, k], out
  float* row_factor;         // [batch, n], out
  unsigned char* workspace;  // SinkhornWorkspace(...) bytes, aligned to 16
};

int64_t SinkhornWorkspace(DType dtype, bool masked, int64_t batch, int64_t n, int64_t k);
// A fixed sequence of launches; nothing comes back to the host in between.
cudaError_t Sinkhorn(const SinkhornArgs& args, cudaStream_t stream);

}  // namespace prism::cuda
