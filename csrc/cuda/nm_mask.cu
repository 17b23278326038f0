// One thread per score: it counts the members of its group that beat it, and stays if fewer than the kept number do.
#include "nm_mask.cuh"

#include "common/launch.cuh"

namespace prism::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kMaxBlocks = 65535 * 32;  // the grid-stride loop takes what is beyond

__device__ float Comparable(float score) { return isnan(score) ? -INFINITY : score; }

__global__ void NmMaskKernel(const float* __restrict__ scores, int64_t numel, int64_t k, int64_t n_keep, int64_t m,
                             bool* __restrict__ mask) {
  const int64_t stride = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < numel; i += stride) {
    const int64_t column = i % k;
    const int64_t begin = column - column % m;
    const int64_t length = min(m, k - begin);
    const int64_t keep = (n_keep * length + m - 1) / m;
    const float* group = scores + (i - column) + begin;
    const float own = Comparable(scores[i]);
    int64_t beaten_by = 0;
    for (int64_t j = 0; j < length; ++j) {
      const float other = Comparable(group[j]);
      beaten_by += other > own || (other == own && begin + j > column);
    }
    mask[i] = beaten_by < keep;
  }
}

}  // namespace

cudaError_t NmMask(const float* scores, int64_t num_rows, int64_t k, int64_t n_keep, int64_t m, bool* mask,
                   cudaStream_t stream) {
  const int64_t numel = num_rows * k;
  if (numel == 0) return cudaSuccess;
  const int64_t blocks = min((numel + kThreads - 1) / kThreads, kMaxBlocks);
  return Launch(NmMaskKernel, static_cast<unsigned>(blocks), kThreads, 0, stream, scores, numel, k, n_keep, m, mask);
}

}  // namespace prism::cuda
