// How the linears on tensor cores finish: float32 sums of the warps of a block, or of the blocks that share k, are added in
// a fixed order, so that a result is the same in every run; then token scale, bias, and one rounding.
//
// Sums come in the layout of d of m16n8 with the rows of a panel permuted as in panel_mma.cuh: d[i] of lane (g = lane / 4,
// t = lane % 4) is row 2g + i / 2 of the panel and token 2t + i % 2.
#pragma once
#include "../../common/panels.h"
#include "launch.cuh"

namespace prism::cuda {

struct LinearOutput {
  void* y = nullptr;                   // [m, n] of dtype
  const void* bias = nullptr;          // [n] of dtype, or null
  const float* token_scale = nullptr;  // [m] that multiplies sums, or null
  float* partial = nullptr;            // [splits of k, m, PartialRows()] where k is split, or null
  DType dtype = DType::kBFloat16;
  int64_t m = 0, n = 0;

  PRISM_HOST_DEVICE int64_t PartialRows() const { return NumPanels(n) * kPanelRows; }
};

// Floats of `partial`; 0 where k is not split.
inline int64_t PartialFloats(int splits, int64_t m, int64_t n) {
  return splits == 1 ? 0 : splits * m * NumPanels(n) * kPanelRows;
}

// y of the partial sums of `splits` blocks. Defined in linear_output.cu.
cudaError_t AddSplits(const LinearOutput& out, int splits, cudaStream_t stream);

// The complete sum of one output. `dtype` is that of `out`, for a caller that knows it when it is compiled.
__device__ inline void FinishOutput(const LinearOutput& out, DType dtype, int64_t token, int64_t row, float sum) {
  if (out.token_scale != nullptr) sum *= out.token_scale[token];
  if (out.bias != nullptr) sum += LoadFloat(out.bias, dtype, row);
  StoreFloat(sum, out.y, dtype, token * out.n + row);
}

// The sum of one output: complete, or the part `split` of k.
__device__ inline void StoreSum(const LinearOutput& out, DType dtype, int64_t token, int64_t row, int64_t split, float sum) {
  if (out.partial == nullptr) {
    FinishOutput(out, dtype, token, row, sum);
  } else {
    out.partial[(split * out.m + token) * out.PartialRows() + row] = sum;
  }
}

// A lane's sums d of 16 rows from `row` on and 8 tokens from `token` on: finished, or the part `split` of k. Rows from the last
// panel's end on, and tokens from m on, are dropped.
__device__ inline void StoreSums(const LinearOutput& out, DType dtype, const float (&d)[4], int64_t token, int64_t row, int64_t split) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  row += lane / 4 * 2;
  token += lane % 4 * 2;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    if (token + i >= out.m || row >= out.PartialRows()) continue;
    if (out.partial != nullptr) {
      float* const at = out.partial + (split * out.m + token + i) * out.PartialRows() + row;
      *reinterpret_cast<float2*>(at) = make_float2(d[i], d[i + 2]);
    } else {
      if (row < out.n) FinishOutput(out, dtype, token + i, row, d[i]);
      if (row + 1 < out.n) FinishOutput(out, dtype, token + i, row + 1, d[i + 2]);
    }
  }
}

// Sums of the warps of a block in shared memory, [warps, tokens, kStride], the rows of kPanels panels side by side; padded so
// that the stores of a warp meet few banks twice.
template <int kPanels, int kTokens>
struct BlockSums {
  static constexpr int kRows = static_cast<int>(kPanelRows) * kPanels, kStride = kRows + 4, kWarpFloats = kTokens * kStride;

  // Sums d of panel `panel` and the 8 tokens `tile` of a warp; `own` are its floats.
  static __device__ void Keep(float* own, int panel, int tile, const float (&d)[4]) {
    const int lane = static_cast<int>(threadIdx.x) % 32, g = lane / 4, t = lane % 4;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      auto* const at = own + (8 * tile + 2 * t + i) * kStride + static_cast<int>(kPanelRows) * panel + 2 * g;
      *reinterpret_cast<float2*>(at) = make_float2(d[i], d[i + 2]);
    }
  }

  // After a barrier: the outputs of the block, the warps' sums added from the first to the last.
  static __device__ void Finish(const LinearOutput& out, DType dtype, const float* kept, int warps, int64_t first_token, int64_t first_row) {
    for (int i = static_cast<int>(threadIdx.x); i < kTokens * kRows; i += static_cast<int>(blockDim.x)) {
      const int token = i / kRows, row = i % kRows;
      if (first_token + token >= out.m || first_row + row >= out.n) continue;
      float sum = 0.0f;
      for (int warp = 0; warp < warps; ++warp) sum += kept[warp * kWarpFloats + token * kStride + row];
      FinishOutput(out, dtype, first_token + token, first_row + row, sum);
    }
  }
};

}  // namespace prism::cuda
