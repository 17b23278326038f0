// The sums of split k, added from the first split to the last, so that a result is the same in every run. One thread per
// output; a few megabytes that the kernel before left in the second cache.
#include "common/panel_mma_launch.cuh"

namespace prism::cuda {
namespace {

__global__ void PanelLinearSumKernel(PanelLinearArgs a) {
  const int64_t padded_n = NumPanels(a.n) * kPanelRows, stride = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < a.m * padded_n; i += stride) {
    const int64_t row = i % padded_n;
    if (row >= a.n) continue;
    float sum = 0.0f;
    for (int s = 0; s < a.splits; ++s) sum += a.workspace[s * a.m * padded_n + i];
    StoreOutput(a, i / padded_n, row, sum);
  }
}

}  // namespace

cudaError_t PanelLinearSum(const PanelLinearArgs& args, cudaStream_t stream) {
  constexpr int64_t kThreads = 256, kMostBlocks = 1 << 20;
  const int64_t blocks = CeilDiv(args.m * NumPanels(args.n) * kPanelRows, kThreads);
  return Launch(PanelLinearSumKernel, static_cast<unsigned>(blocks < kMostBlocks ? blocks : kMostBlocks),
                static_cast<unsigned>(kThreads), 0, stream, args);
}

}  // namespace prism::cuda
