#include "bitmap_activations.cuh"

#include "common/bitmap.cuh"
#include "common/ptx.cuh"

namespace prism::cuda {
namespace {

constexpr int kThreads = 256;

__device__ float Scaled(const ActivationArgs& a, int64_t token, int64_t column) {
  const float x = LoadFloat(a.x, a.dtype, token * a.k + column);
  return a.column_scale == nullptr ? x : x * BFloat16ToFloat(a.column_scale[column]);
}

// A block takes a token.
__global__ void TokenScalesKernel(ActivationArgs a, float* __restrict__ token_scale) {
  PRISM_DYNAMIC_SMEM(shared);
  auto* const warps = reinterpret_cast<float*>(shared);
  const int64_t token = blockIdx.x;
  float largest = 0.0f;
  for (int64_t column = threadIdx.x; column < a.k; column += kThreads) largest = max(largest, fabsf(Scaled(a, token, column)));
  for (int lanes = 16; lanes > 0; lanes /= 2) largest = max(largest, __shfl_xor_sync(0xffffffffu, largest, lanes));
  if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = largest;
  __syncthreads();
  if (threadIdx.x != 0) return;
  for (int warp = 1; warp < kThreads / 32; ++warp) largest = max(largest, warps[warp]);
  const float scale = __fdiv_rn(largest, 127.0f);
  token_scale[token] = scale > 0.0f ? scale : 1.0f;
}

// A thread takes 8 columns of a token: a vector of the fragments.
__global__ void ArrangeFragmentsKernel(ActivationArgs a, const float* __restrict__ token_scale, bool to_bfloat16, int tiles,
                                       uint4* __restrict__ fragments, int64_t count) {
  const int64_t blocks = NumBlocks32(a.k), stride = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < count; i += stride) {
    const int lane = static_cast<int>(i % 32), tile = static_cast<int>(i / 32 % tiles);
    const int64_t block = i / 32 / tiles % blocks;
    int64_t token = 8 * (i / 32 / tiles / blocks * tiles + tile) + lane / 4, first = block * kBlockColumns + 8 * (lane % 4);
    if (tiles == 1) {
      token = i / (4 * blocks);
      first = i % (4 * blocks) * 8;
    }
    float values[8];
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      values[j] = token < a.m && first + j < a.k ? Scaled(a, token, first + j) : 0.0f;
      if (token_scale != nullptr && token < a.m) {
        values[j] = min(max(rintf(__fdiv_rn(values[j], token_scale[token])), -127.0f), 127.0f);
      }
    }
    const auto pack = [&](int j) { return to_bfloat16 ? PackBf16(values[j], values[j + 1]) : PackFp16(values[j], values[j + 1]); };
    fragments[i] = make_uint4(pack(0), pack(2), pack(4), pack(6));
  }
}

}  // namespace

int64_t FragmentBytes(int64_t m, int64_t k, int tiles) {
  return tiles == 1 ? m * NumBlocks32(k) * 64 : CeilDiv(m, 8 * tiles) * NumBlocks32(k) * tiles * 32 * 16;
}

cudaError_t TokenScales(const ActivationArgs& a, float* token_scale, cudaStream_t stream) {
  if (a.m == 0) return cudaSuccess;
  return Launch(TokenScalesKernel, static_cast<unsigned>(a.m), kThreads, kThreads / 32 * sizeof(float), stream, a, token_scale);
}

cudaError_t ArrangeFragments(const ActivationArgs& a, const float* token_scale, DType rounded, int tiles, void* fragments,
                             cudaStream_t stream) {
  const int64_t count = FragmentBytes(a.m, a.k, tiles) / 16;
  if (count == 0) return cudaSuccess;
  const int64_t blocks = min(CeilDiv(count, kThreads), int64_t{65535});
  return Launch(ArrangeFragmentsKernel, static_cast<unsigned>(blocks), kThreads, 0, stream, a, token_scale,
                rounded == DType::kBFloat16, tiles, static_cast<uint4*>(fragments), count);
}

}  // namespace prism::cuda
