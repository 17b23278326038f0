// The sums of split k, added from the first split to the last. One thread per output; a few megabytes that the kernel before
// left in the second cache.
#include "common/linear_output.cuh"

namespace prism::cuda {
namespace {

__global__ void AddSplitsKernel(LinearOutput out, int splits) {
  const int64_t rows = out.PartialRows(), count = out.m * rows, stride = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += stride) {
    const int64_t row = i % rows;
    if (row >= out.n) continue;
    float sum = 0.0f;
    for (int split = 0; split < splits; ++split) sum += out.partial[split * count + i];
    FinishOutput(out, out.dtype, i / rows, row, sum);
  }
}

}  // namespace

cudaError_t AddSplits(const LinearOutput& out, int splits, cudaStream_t stream) {
  constexpr int64_t kThreads = 256, kMostBlocks = 1 << 20;
  const int64_t blocks = CeilDiv(out.m * out.PartialRows(), kThreads);
  return Launch(AddSplitsKernel, static_cast<unsigned>(blocks < kMostBlocks ? blocks : kMostBlocks),
                static_cast<unsigned>(kThreads), 0, stream, out, splits);
}

}  // namespace prism::cuda
