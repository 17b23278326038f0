// Half a warp per tile, a lane per column: it adds the column from the first row down, then the 16 columns are added in
// the order of the CPU. A warp reads 128 contiguous bytes of a row; the bound is reading the scores once.
#include "block_scores.cuh"

#include "../common/panels.h"
#include "common/launch.cuh"

namespace prism::cuda {
namespace {

constexpr int kTile = 16;
constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int64_t kMaxBlocks = int64_t{1} << 30;

__global__ void __launch_bounds__(kThreads)
    BlockScoresKernel(const float* __restrict__ scores, const bool* __restrict__ mask, int64_t n, int64_t k,
                      float* __restrict__ sums) {
  const int64_t tiles = CeilDiv(k, kTile), pairs = CeilDiv(tiles, 2), total = NumPanels(n) * pairs;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kWarps;
  for (int64_t at = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / 32; at < total; at += stride) {
    const int64_t panel = at / pairs, tile = at % pairs * 2 + lane / kTile, column = tile * kTile + lane % kTile;
    const int64_t first = panel * kPanelRows, end = min(first + kPanelRows, n);
    float sum = 0;
    for (int64_t row = first; row < end && column < k; ++row) {
      const int64_t from = row * k + column;
      sum += mask == nullptr || mask[from] ? scores[from] : 0.0f;
    }
    for (int lanes = kTile / 2; lanes > 0; lanes /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, lanes);
    if (lane % kTile == 0 && tile < tiles) sums[panel * tiles + tile] = sum;
  }
}

}  // namespace

cudaError_t BlockScores(const float* scores, const bool* mask, int64_t n, int64_t k, float* sums, cudaStream_t stream) {
  const int64_t warps = NumPanels(n) * CeilDiv(CeilDiv(k, kTile), 2);
  if (warps == 0) return cudaSuccess;
  const auto blocks = static_cast<unsigned>(min(CeilDiv(warps, kWarps), kMaxBlocks));
  return Launch(BlockScoresKernel, blocks, kThreads, 0, stream, scores, mask, n, k, sums);
}

}  // namespace prism::cuda
