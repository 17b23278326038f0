// A block takes a panel, 512 columns at a time: a thread decodes a quad into a tile in shared memory, which is then written
// row by row. Bound by memory: 3.5 bits read and 16 written per weight at 50 %, 4 bits and g = 64.
#include "bitmap_dual_shift_dequantize.cuh"

#include "common/bitmap.cuh"
#include "common/bitmap_grid.cuh"
#include "common/bitmap_tile.cuh"

namespace prism::cuda {
namespace {

template <DType kDType>
struct Element {
  using Type = uint16_t;
};
template <>
struct Element<DType::kFloat32> {
  using Type = float;
};

template <DType kDType>
__device__ typename Element<kDType>::Type Rounded(float value) {
  if constexpr (kDType == DType::kFloat32) {
    return value;
  } else {
    return static_cast<uint16_t>(kDType == DType::kBFloat16 ? PackBf16(value, 0.0f) : PackFp16(value, 0.0f));
  }
}

template <DType kDType>
__global__ void __launch_bounds__(kUnitThreads) BitmapDualShiftDequantizeKernel(
    BitmapCodesGrid grid, const uint16_t* __restrict__ column_scale, int64_t n, int64_t k,
    typename Element<kDType>::Type* __restrict__ weight) {
  using T = typename Element<kDType>::Type;
  PRISM_DYNAMIC_SMEM(shared);
  using Tile = UnitTile<4, T>;
  const Tile tile(shared);
  float* const levels = reinterpret_cast<float*>(shared + Tile::kBytes + kUnitBytesOfShared);
  grid.LoadLevels(levels);
  const int64_t panel = blockIdx.x;
  ForUnits<4>(
      grid.bitmap, panel, NumQuads(k), grid.panel_offsets[panel], grid.bits, shared + Tile::kBytes,
      [&](int64_t quad, const Unit<4>& mask, int64_t position) {
        float factors[4];
        for (int c = 0; c < 4; ++c) {
          factors[c] = 4 * quad + c < k ? BFloat16ToFloat(column_scale[4 * quad + c]) : 0.0f;
        }
        grid.ForRows(panel, quad, k, mask, position, levels, [&](int row, const float(&unscaled)[4]) {
          T values[4];
          for (int c = 0; c < 4; ++c) values[c] = Rounded<kDType>(unscaled[c] * factors[c]);
          tile.Store(row, values);
        });
      },
      [&](int64_t first) { tile.Write(weight, panel, first, n, k); });
}

template <DType kDType>
cudaError_t Run(const BitmapDualShiftDequantizeArgs& a, int64_t panels, cudaStream_t stream) {
  using T = typename Element<kDType>::Type;
  const BitmapCodesGrid grid{a.bitmap, a.codes, a.panel_offsets, a.scale, a.zero, a.size, a.group_size, a.groups, a.bits, a.codebook};
  return Launch(BitmapDualShiftDequantizeKernel<kDType>, static_cast<unsigned>(panels), kUnitThreads,
                UnitTile<4, T>::kBytes + kUnitBytesOfShared + kLevelBytes, stream, grid, a.column_scale, a.n, a.k,
                static_cast<T*>(a.weight));
}

}  // namespace

cudaError_t BitmapDualShiftDequantize(const BitmapDualShiftDequantizeArgs& a, cudaStream_t stream) {
  const int64_t panels = NumPanels(a.n);
  if (panels == 0 || a.k == 0) return cudaSuccess;
  switch (a.dtype) {
    case DType::kFloat32: return Run<DType::kFloat32>(a, panels, stream);
    case DType::kFloat16: return Run<DType::kFloat16>(a, panels, stream);
    default: return Run<DType::kBFloat16>(a, panels, stream);
  }
}

}  // namespace prism::cuda
