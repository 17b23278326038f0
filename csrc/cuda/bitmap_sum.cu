// The second half of a linear over a bitmap whose columns several blocks share.
#include "common/bitmap_mma.cuh"

namespace prism::cuda {
namespace {

constexpr int kThreads = 256;

__global__ void BitmapSumKernel(BitmapMmaArgs a, int splits) {
  const int64_t count = a.m * a.n, stride = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < count; i += stride) {
    float sum = 0.0f;
    for (int split = 0; split < splits; ++split) sum += a.partial[split * count + i];
    StoreSum(a, i / a.n, i % a.n, sum);
  }
}

}  // namespace

cudaError_t AddPartialSums(const BitmapMmaArgs& a, int splits, cudaStream_t stream) {
  const int64_t blocks = min(CeilDiv(a.m * a.n, kThreads), int64_t{65535});
  return Launch(BitmapSumKernel, static_cast<unsigned>(blocks), kThreads, 0, stream, a, splits);
}

}  // namespace prism::cuda
