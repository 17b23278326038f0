// A block takes a panel, 256 columns at a time: a thread places the values of a pair in a tile in shared memory, which is
// then written row by row. Bound by memory: 9 bits read and 16 written per weight at 50 % and 16-bit values.
#include "bitmap_unpack.cuh"

#include "common/bitmap.cuh"
#include "common/bitmap_tile.cuh"

namespace prism::cuda {
namespace {

template <class T>
__global__ void __launch_bounds__(kUnitThreads) BitmapUnpackKernel(
    const uint8_t* __restrict__ bitmap, const T* __restrict__ values, const int64_t* __restrict__ panel_offsets,
    int64_t size, int64_t n, int64_t k, T* __restrict__ weight) {
  PRISM_DYNAMIC_SMEM(shared);
  using Tile = UnitTile<2, T>;
  const Tile tile(shared);
  const int64_t panel = blockIdx.x;
  ForUnits<2>(
      bitmap, panel, CeilDiv(k, 2), panel_offsets[panel], 0, shared + Tile::kBytes,
      [&](int64_t, const Unit<2>& mask, int64_t next) {
#pragma unroll
        for (int row = 0; row < kPanelRows; ++row) {
          const uint32_t kept = mask.Row(row);
          T pair[2];
#pragma unroll
          for (int b = 0; b < 2; ++b) {
            const bool stored = (kept >> b & 1) != 0;
            pair[b] = stored && next >= 0 && next < size ? values[next] : T{0};
            next += stored;
          }
          tile.Store(row, pair);
        }
      },
      [&](int64_t first) { tile.Write(weight, panel, first, n, k); });
}

template <class T>
cudaError_t Run(const BitmapUnpackArgs& a, int64_t panels, cudaStream_t stream) {
  return Launch(BitmapUnpackKernel<T>, static_cast<unsigned>(panels), kUnitThreads,
                UnitTile<2, T>::kBytes + kUnitBytesOfShared, stream, a.bitmap, static_cast<const T*>(a.values),
                a.panel_offsets, a.size, a.n, a.k, static_cast<T*>(a.weight));
}

}  // namespace

cudaError_t BitmapUnpack(const BitmapUnpackArgs& a, cudaStream_t stream) {
  const int64_t panels = NumPanels(a.n);
  if (panels == 0 || a.k == 0) return cudaSuccess;
  return a.element_bytes == 2 ? Run<uint16_t>(a, panels, stream) : Run<uint32_t>(a, panels, stream);
}

}  // namespace prism::cuda
