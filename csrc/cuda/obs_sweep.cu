// A lane per row, a warp per block: rows know nothing of one another, so the whole matrix is swept at once. A block keeps
// its 32 rows transposed, column by column, and goes through strips of up to 4 columns: they become final one after
// another, then every column to their right takes their 4 errors in that order, loaded and stored once. Each operation is
// rounded on its own, so the results are those of the CPU and of torch, bit for bit.
//
// Per weight and column to its left: a multiplication, a subtraction and 3/4 of an access to shared memory. 4096 x 4096 in
// blocks of 128 columns: about 25,000 instructions of one warp per block of columns.
#include "obs_sweep.cuh"

#include "../common/grid.h"
#include "common/launch.cuh"

namespace prism::cuda {
namespace {

constexpr int kRows = 32;
constexpr int kStride = kRows + 1;  // of a column: neither rows nor columns of a tile meet in one bank
constexpr int kStrip = 4;
constexpr int64_t kMostShared = 200 * 1024;

// What a block holds, in this order: the strip's rows of the factor [b, 4], current and error [b, 33] floats, kept and
// codes [b, 33] bytes.
__host__ __device__ int64_t BlockBytes(int64_t b) {
  const int64_t bytes = b * (kStrip * 4 + kStride * (4 + 4 + 1 + 1));
  return (bytes + 15) / 16 * 16;
}

struct Rows {
  float *factor, *current, *error;
  uint8_t *kept, *codes;

  __device__ Rows(unsigned char* memory, int64_t b)
      : factor(reinterpret_cast<float*>(memory)), current(factor + kStrip * b), error(current + kStride * b),
        kept(reinterpret_cast<uint8_t*>(error + kStride * b)), codes(kept + kStride * b) {}
};

// Calls use(r, c) for every element of the block's rows, neighbouring lanes on neighbouring columns.
template <class Use>
__device__ void ForTile(int64_t rows, int64_t b, Use use) {
  for (int64_t c = threadIdx.x; c < b; c += kRows) {
    for (int64_t r = 0; r < rows; ++r) use(r, c);
  }
}

// The n:m choice among the columns [j, j + width): a weight stays if fewer than `keep` others beat it. Scores wait where
// errors of these columns come later.
__device__ void Choose(const ObsSweepArgs& a, const Rows& rows, int64_t j) {
  const int64_t width = min(a.m, a.b - j), keep = (a.n_keep * width + a.m - 1) / a.m;
  const int lane = static_cast<int>(threadIdx.x);
  float* scores = rows.error + j * kStride + lane;
  for (int64_t c = 0; c < width; ++c) {
    const float value = rows.current[(j + c) * kStride + lane], diagonal = a.factor[(j + c) * a.b + j + c];
    const float score = (value * value) / (diagonal * diagonal);
    scores[c * kStride] = isnan(score) ? -INFINITY : score;
  }
  for (int64_t c = 0; c < width; ++c) {
    const float own = scores[c * kStride];
    int64_t beaten_by = 0;
    for (int64_t i = 0; i < width; ++i) {
      const float other = scores[i * kStride];
      beaten_by += i != c && (other > own || (other == own && i > c));
    }
    rows.kept[(j + c) * kStride + lane] = beaten_by < keep;
  }
}

__device__ float ColumnScale(const ObsSweepArgs& a, int64_t c) {
  return a.column_scale != nullptr ? BFloat16ToFloat(a.column_scale[c]) : 1.0f;
}

// The grid of this lane's row in the group that starts at column j.
__device__ Grid StartGroup(const ObsSweepArgs& a, const Rows& rows, int64_t j, float maxq) {
  const int lane = static_cast<int>(threadIdx.x);
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kRows + lane, at = row * a.groups + j / a.group_size;
  Grid grid = {0, 0};
  if (row >= a.n) return grid;
  if (a.scale != nullptr) {
    grid = {a.scale[at], a.zero[at]};
  } else {
    float low = 0, high = 0;
    for (int64_t c = j; c < min(a.b, j + a.group_size); ++c) {
      if (!rows.kept[c * kStride + lane]) continue;
      const float value = rows.current[c * kStride + lane] / ColumnScale(a, c);
      low = value < low ? value : low;
      high = value > high ? value : high;
    }
    grid = FindGrid(low, high, maxq);
  }
  a.scale_out[at] = grid.scale;
  a.zero_out[at] = grid.zero;
  return grid;
}

// Columns [from, b), to the right of a strip of kCount, take its errors in their order.
template <int kCount>
__device__ void Subtract(const Rows& rows, int64_t from, int64_t b) {
  float* current = rows.current + threadIdx.x;
  float error[kCount];
#pragma unroll
  for (int i = 0; i < kCount; ++i) error[i] = rows.error[(from - kCount + i) * kStride + threadIdx.x];
  for (int64_t c = from; c < b; ++c) {
    float value = current[c * kStride];
#pragma unroll
    for (int i = 0; i < kCount; ++i) value -= error[i] * rows.factor[c * kStrip + i];
    current[c * kStride] = value;
  }
}

// Column c, the k-th of its strip, becomes final. Errors of the strip are read again: divisions are calls, and registers
// that live across them would be spilled.
__device__ void Settle(const ObsSweepArgs& a, const Rows& rows, int64_t c, int64_t k, Grid grid, float maxq) {
  const int64_t at = c * kStride + threadIdx.x;
  float value = rows.current[at];
  for (int64_t i = 0; i < k; ++i) value -= rows.error[at - (k - i) * kStride] * rows.factor[c * kStrip + i];
  const bool kept = rows.kept[at] != 0;
  float result = value;
  if (a.bits > 0) {
    const float column = ColumnScale(a, c), scale = BFloat16ToFloat(grid.scale), zero = static_cast<float>(grid.zero);
    const uint8_t code = RoundToGrid(value / column, scale, zero, maxq);
    rows.codes[at] = kept ? code : grid.zero;
    result = (static_cast<float>(code) - zero) * scale * column;
  }
  result = kept ? result : 0.0f;
  rows.current[at] = result;
  rows.error[at] = (value - result) / rows.factor[c * kStrip + k];
}

__device__ void Sweep(const ObsSweepArgs& a, const Rows& rows) {
  const float maxq = static_cast<float>((1 << a.bits) - 1);
  const bool chooses = a.mask == nullptr && a.m > 0;
  Grid grid = {0, 0};
  for (int64_t j = 0, end = 0; j < a.b; j = end) {
    if (chooses && j % a.m == 0) Choose(a, rows, j);
    if (a.bits > 0 && j % a.group_size == 0) grid = StartGroup(a, rows, j, maxq);
    end = min(a.b, j + kStrip);  // what a choice or a grid looks at must have all errors before it
    if (chooses) end = min(end, (j / a.m + 1) * a.m);
    if (a.bits > 0) end = min(end, (j / a.group_size + 1) * a.group_size);
    __syncwarp();
    for (int64_t i = j; i < end; ++i) {
      for (int64_t c = i + threadIdx.x; c < a.b; c += kRows) rows.factor[c * kStrip + i - j] = a.factor[i * a.b + c];
    }
    __syncwarp();
    for (int64_t c = j; c < end; ++c) Settle(a, rows, c, c - j, grid, maxq);
    switch (end - j) {
      case 1: Subtract<1>(rows, end, a.b); break;
      case 2: Subtract<2>(rows, end, a.b); break;
      case 3: Subtract<3>(rows, end, a.b); break;
      default: Subtract<4>(rows, end, a.b); break;
    }
  }
}

// 16 blocks: with more registers to hand out, the compiler spills around the calls that divisions are.
__global__ void __launch_bounds__(kRows, 16) ObsSweepKernel(const ObsSweepArgs a) {
  PRISM_DYNAMIC_SMEM(shared);
  const Rows rows(a.workspace != nullptr ? a.workspace + blockIdx.x * BlockBytes(a.b) : shared, a.b);
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kRows, count = min(static_cast<int64_t>(kRows), a.n - first);
  ForTile(kRows, a.b, [&](int64_t r, int64_t c) {
    const int64_t from = (first + r) * a.b + c;
    rows.current[c * kStride + r] = r < count ? a.weight[from] : 0.0f;
    rows.kept[c * kStride + r] = r >= count || a.mask == nullptr || a.mask[from];
  });
  __syncwarp();
  Sweep(a, rows);
  __syncwarp();
  ForTile(count, a.b, [&](int64_t r, int64_t c) {
    const int64_t to = (first + r) * a.b + c, from = c * kStride + r;
    a.compensated[to] = rows.current[from];
    a.error[to] = rows.error[from];
    a.kept[to] = rows.kept[from] != 0;
    if (a.bits > 0) a.codes[to] = rows.codes[from];
  });
}

}  // namespace

int64_t ObsSweepWorkspace(int64_t n, int64_t b) {
  return BlockBytes(b) <= kMostShared ? 0 : (n + kRows - 1) / kRows * BlockBytes(b);
}

cudaError_t ObsSweep(const ObsSweepArgs& args, cudaStream_t stream) {
  if (args.n == 0 || args.b == 0) return cudaSuccess;
  ObsSweepArgs a = args;
  const bool shared = ObsSweepWorkspace(a.n, a.b) == 0;
  if (shared) a.workspace = nullptr;
  const auto blocks = static_cast<unsigned>((a.n + kRows - 1) / kRows);
  return Launch(ObsSweepKernel, blocks, kRows, shared ? static_cast<size_t>(BlockBytes(a.b)) : 0, stream, a);
}

}  // namespace prism::cuda
