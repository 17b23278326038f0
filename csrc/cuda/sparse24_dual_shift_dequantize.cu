// A warp decodes a tile of 16 rows x 64 columns (common/sparse24.cuh). Lane 4 g + 2 j + p holds quads j and 2 + j of its half p
// of a step; having swapped words with lane ^ 2 it has quads 2 j and 2 j + 1, eight neighbouring columns, of rows 2 g and
// 2 g + 1, and stores 16 bytes at once, 64 to a row. Bound by the bytes of the result: 16 bits written for 3.3 read; about 12
// instructions per weight (SASS of sm_90) take some 25 us of a 14336x4096 weight, its bytes 30. Not measured.
#include "sparse24_dual_shift_dequantize.cuh"

#include "common/launch.cuh"
#include "common/sparse24.cuh"
#include "common/store_eight.cuh"

namespace prism::cuda {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / 32;

struct Decoder {
  Sparse24DualShift weight;
  int64_t n, k, tiles, all_tiles;  // tiles of a panel, of all panels
  uint32_t group_size, groups;
  bool vectors;  // the column scale is whole, aligned vectors of 16 bytes
  bool aligned;  // RowsAligned16
  void* dense;
};

// Column scales of eight columns from `column` on, 0 past k.
__device__ void LoadFactors(const Decoder& d, int64_t column, float (&factors)[8]) {
  if (d.vectors) {
    const uint4 eight = __ldg(reinterpret_cast<const uint4*>(d.weight.column_scale + column));
    const uint32_t pairs[4] = {eight.x, eight.y, eight.z, eight.w};
#pragma unroll
    for (int c = 0; c < 8; ++c) {
      factors[c] = BitsToFloat(c % 2 == 0 ? pairs[c / 2] << 16 : pairs[c / 2] & 0xffff0000u);
    }
    return;
  }
#pragma unroll
  for (int c = 0; c < 8; ++c) factors[c] = column + c < d.k ? BFloat16ToFloat(d.weight.column_scale[column + c]) : 0.0f;
}

// code - zero, exact: both as the mantissa of 2^23.
__device__ float Step(uint32_t code, uint32_t zero) { return BitsToFloat(0x4b000000u | code) - BitsToFloat(0x4b000000u | zero); }

template <DType kDType>
__global__ void __launch_bounds__(kThreads) Sparse24DualShiftDequantizeKernel(Decoder d) {
  const int lane = static_cast<int>(threadIdx.x) % 32, g = lane / 4, j = lane / 2 % 2, p = lane % 2;
  const int64_t tile = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / 32;
  if (tile >= d.all_tiles) return;  // a whole warp
  const int64_t panel = tile / d.tiles, row = panel * kPanelRows + 2 * g;
  const uint2 words = __ldg(reinterpret_cast<const uint2*>(d.weight.codes) + tile * 32 + lane);
#pragma unroll
  for (int step = 0; step < 2; ++step) {
    const int64_t column = tile % d.tiles * kSparseTileColumns + step * kSparseStepColumns + 16 * p + 8 * j;
    const uint32_t own = step == 0 ? words.x : words.y, other = __shfl_xor_sync(0xffffffffu, own, 2);
    if (column >= d.k) continue;
    const uint32_t quads[2] = {j == 0 ? own : other, j == 0 ? other : own};
    const uint32_t columns = __ldg(d.weight.columns + tile * 32 + 4 * g + 2 * step + j) >> 4 * p;
    const int64_t group = panel * d.groups + static_cast<uint32_t>(column) / d.group_size;
    const uint32_t scales = __ldg(reinterpret_cast<const uint32_t*>(d.weight.scale + group * kPanelRows) + g);
    const uint32_t zeros = __ldg(reinterpret_cast<const uint16_t*>(d.weight.zero + group * (kPanelRows / 2)) + g % 4) >> 4 * (g / 4);
    float factors[8];
    LoadFactors(d, column, factors);
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const uint32_t zero = zeros >> 8 * h & 15u;
      const float scale = BitsToFloat(h == 0 ? scales << 16 : scales & 0xffff0000u);
      float values[8];
#pragma unroll
      for (int q = 0; q < 2; ++q) {
        const uint32_t pair = quads[q] >> 4 * (2 * j + h), held = columns >> 4 * (4 * h + 2 * q);
        const float first = Step(pair & 15u, zero) * scale, second = Step(pair >> 16 & 15u, zero) * scale;
#pragma unroll
        for (uint32_t c = 0; c < 4; ++c) {
          const float value = c == (held & 3u) ? first : c == (held >> 2 & 3u) ? second : 0.0f;
          values[4 * q + c] = value * factors[4 * q + c];
        }
      }
      if (row + h < d.n) StoreEight<kDType>(d.dense, row + h, column, d.k, d.aligned, values);
    }
  }
}

}  // namespace

cudaError_t Sparse24DualShiftDequantize(const Sparse24DualShift& weight, DType dtype, int64_t n, int64_t k, void* dense,
                                        cudaStream_t stream) {
  if (n == 0 || k == 0) return cudaSuccess;
  const int64_t tiles = NumSparseTiles(k), all_tiles = NumPanels(n) * tiles;
  const int64_t columns = tiles * kSparseTileColumns;  // a longer group is the only one
  const Decoder decoder{weight, n, k, tiles, all_tiles,
                        static_cast<uint32_t>(min(weight.group_size, columns)),
                        static_cast<uint32_t>(CeilDiv(k, weight.group_size)),
                        k % 8 == 0 && reinterpret_cast<uintptr_t>(weight.column_scale) % 16 == 0,
                        RowsAligned16(dense, k, dtype), dense};
  const auto blocks = static_cast<unsigned>(CeilDiv(all_tiles, int64_t{kWarps}));
  switch (dtype) {
    case DType::kFloat32: return Launch(Sparse24DualShiftDequantizeKernel<DType::kFloat32>, blocks, kThreads, 0, stream, decoder);
    case DType::kFloat16: return Launch(Sparse24DualShiftDequantizeKernel<DType::kFloat16>, blocks, kThreads, 0, stream, decoder);
    default: return Launch(Sparse24DualShiftDequantizeKernel<DType::kBFloat16>, blocks, kThreads, 0, stream, decoder);
  }
}

}  // namespace prism::cuda
