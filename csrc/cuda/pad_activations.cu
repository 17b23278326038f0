// One thread per value.
#include "pad_activations.cuh"

#include "common/launch.cuh"

namespace prism::cuda {
namespace {

constexpr int kThreads = 256;

__global__ void PadActivationsKernel(const void* x, DType dtype, const uint16_t* column_scale, int64_t m, int64_t k,
                                     int64_t padded_k, uint16_t* padded) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= m * padded_k) return;
  const int64_t token = i / padded_k, column = i % padded_k;
  float value = column < k ? LoadFloat(x, dtype, token * k + column) : 0.0f;
  if (column < k && column_scale != nullptr) value *= BFloat16ToFloat(column_scale[column]);
  StoreFloat(value, padded, dtype, i);
}

}  // namespace

cudaError_t PadActivations(const void* x, DType dtype, const uint16_t* column_scale, int64_t m, int64_t k, int64_t padded_k,
                           uint16_t* padded, cudaStream_t stream) {
  return Launch(PadActivationsKernel, static_cast<unsigned>(CeilDiv(m * padded_k, int64_t{kThreads})), kThreads, 0, stream, x,
                dtype, column_scale, m, k, padded_k, padded);
}

}  // namespace prism::cuda
