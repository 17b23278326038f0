// A block per token: the largest magnitude, then the quotients; the row is read twice, the second time from the cache.
#include "quantize_activations.cuh"

#include "common/launch.cuh"

namespace prism::cuda {
namespace {

constexpr int kThreads = 256;

__global__ void QuantizeActivationsKernel(const void* x, DType dtype, const uint16_t* column_scale, int64_t k,
                                          uint16_t* whole, float* token_scale) {
  PRISM_DYNAMIC_SMEM(shared);
  auto* const largest_of_warp = reinterpret_cast<float*>(shared);
  const int64_t token = blockIdx.x;
  const auto scaled = [&](int64_t j) {
    const float c = column_scale == nullptr ? 1.0f : BFloat16ToFloat(column_scale[j]);
    return LoadFloat(x, dtype, token * k + j) * c;
  };
  float largest = 0.0f;
  for (int64_t j = threadIdx.x; j < k; j += kThreads) largest = max(largest, fabsf(scaled(j)));
  for (int lanes = 16; lanes > 0; lanes /= 2) largest = max(largest, __shfl_xor_sync(0xffffffffu, largest, lanes));
  if (threadIdx.x % 32 == 0) largest_of_warp[threadIdx.x / 32] = largest;
  __syncthreads();
  for (int w = 0; w < kThreads / 32; ++w) largest = max(largest, largest_of_warp[w]);
  float scale = __fdiv_rn(largest, 127.0f);
  if (!(scale > 0.0f)) scale = 1.0f;
  for (int64_t j = threadIdx.x; j < k; j += kThreads) {
    const float q = rintf(__fdiv_rn(scaled(j), scale));
    whole[token * k + j] = FloatToBFloat16(max(-127.0f, min(127.0f, q)));
  }
  if (threadIdx.x == 0) token_scale[token] = scale;
}

}  // namespace

cudaError_t QuantizeActivations(const void* x, DType dtype, const uint16_t* column_scale, int64_t m, int64_t k,
                                uint16_t* whole, float* token_scale, cudaStream_t stream) {
  if (m == 0) return cudaSuccess;
  return Launch(QuantizeActivationsKernel, static_cast<unsigned>(m), kThreads, kThreads / 32 * sizeof(float), stream, x,
                dtype, column_scale, k, whole, token_scale);
}

}  // namespace prism::cuda
