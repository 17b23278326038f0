// Linears over a bitmap weight on CUDA cores, in float32: what the tensor-core kernel does not take (float32 activations,
// groups that are not multiples of 32 columns, values of another dtype than x). Correct everywhere, tuned for nothing.
//
// A block takes a panel and 32 tokens: it decodes kUnitThreads units into shared memory, and thread (row, i) multiplies its
// row with tokens i, i + 8, i + 16 and i + 24, column by column.
#pragma once
#include "../bitmap_activations.cuh"
#include "bitmap.cuh"

namespace prism::cuda {

inline constexpr int kPlainTokens = 32;

struct PlainArgs {
  ActivationArgs x;
  const float* token_scale;  // null; or [m], and x c is rounded to whole numbers of it
  const void* bias;          // [n] of x.dtype, or null
  int64_t n;
  void* y;  // [m, n] of x.dtype
};

// Source: kColumns, bits, bitmap, panel_offsets; LoadLevels(float*), and Decode(panel, unit, k, mask, position, levels,
// body), which calls body(row, values[kColumns]) for 16 rows. `position` counts what panel_offsets count.
template <class Source>
struct PlainShape {
  static constexpr int kColumns = Source::kColumns, kWidth = kColumns * kUnitThreads, kStride = kWidth + 1;
  static constexpr int kTileBytes = 16 * kStride * 4;
  static constexpr int kSharedBytes = kTileBytes + 64 + kUnitBytesOfShared;
};

__device__ inline float PlainActivation(const PlainArgs& a, int64_t token, int64_t column) {
  float x = LoadFloat(a.x.x, a.x.dtype, token * a.x.k + column);
  if (a.x.column_scale != nullptr) x *= BFloat16ToFloat(a.x.column_scale[column]);
  if (a.token_scale != nullptr) x = min(max(rintf(__fdiv_rn(x, a.token_scale[token])), -127.0f), 127.0f);
  return x;
}

template <class Source>
__global__ void BitmapPlainKernel(Source source, PlainArgs a) {
  PRISM_DYNAMIC_SMEM(shared);
  using Shape = PlainShape<Source>;
  auto* const tile = reinterpret_cast<float*>(shared);
  auto* const levels = reinterpret_cast<float*>(shared + Shape::kTileBytes);
  source.LoadLevels(levels);
  const int64_t token_blocks = CeilDiv(a.x.m, kPlainTokens);
  const int64_t panel = blockIdx.x / token_blocks, first_token = blockIdx.x % token_blocks * kPlainTokens;
  const int row = static_cast<int>(threadIdx.x) % 16, i = static_cast<int>(threadIdx.x) / 16;
  float sums[4] = {};
  ForUnits<Shape::kColumns>(
      source.bitmap, panel, CeilDiv(a.x.k, Shape::kColumns), source.panel_offsets[panel], source.bits, shared + Shape::kTileBytes + 64,
      [&](int64_t unit, const Unit<Shape::kColumns>& mask, int64_t position) {
        source.Decode(panel, unit, a.x.k, mask, position, levels, [&](int r, const float(&values)[Shape::kColumns]) {
          for (int c = 0; c < Shape::kColumns; ++c) tile[r * Shape::kStride + threadIdx.x * Shape::kColumns + c] = values[c];
        });
      },
      [&](int64_t first_unit) {
        __syncthreads();
        const int64_t first = first_unit * Shape::kColumns;
        const int columns = static_cast<int>(min(static_cast<int64_t>(Shape::kWidth), a.x.k - first));
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          const int64_t token = first_token + 8 * j + i;
          if (token >= a.x.m) continue;
          float sum = sums[j];
          for (int c = 0; c < columns; ++c) sum = __fmaf_rn(tile[row * Shape::kStride + c], PlainActivation(a, token, first + c), sum);
          sums[j] = sum;
        }
        __syncthreads();
      });
  const int64_t out = panel * kPanelRows + row;
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    const int64_t token = first_token + 8 * j + i;
    if (token >= a.x.m || out >= a.n) continue;
    float y = sums[j];
    if (a.token_scale != nullptr) y *= a.token_scale[token];
    if (a.bias != nullptr) y += LoadFloat(a.bias, a.x.dtype, out);
    StoreFloat(y, a.y, a.x.dtype, token * a.n + out);
  }
}

template <class Source>
cudaError_t LaunchBitmapPlain(const Source& source, const PlainArgs& a, cudaStream_t stream) {
  const auto blocks = static_cast<unsigned>(NumPanels(a.n) * CeilDiv(a.x.m, kPlainTokens));
  return Launch(BitmapPlainKernel<Source>, blocks, kUnitThreads, PlainShape<Source>::kSharedBytes, stream, source, a);
}

}  // namespace prism::cuda
