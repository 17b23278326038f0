// A block per panel, a warp per tile: a lane has half a row, eight columns, which it stores at once. Bound: writing the dense
// weight.
#include "tiered_unpack.cuh"

#include "common/ptx.cuh"
#include "common/tiered.cuh"

namespace prism::cuda {
namespace {

template <class Value>
__device__ void UnpackTile(const TieredBlocks& w, const PanelTiles& tiles, TilePlace place, int64_t panel, int64_t tile, bool aligned,
                           Value* dense) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int64_t row = panel * kPanelRows + lane / 2, column = tile * kTileColumns + lane % 2 * 8;
  const auto* const values = static_cast<const Value*>(w.values);
  const uint32_t full = place.mask == kDenseTile ? ~0u : 0u;
  uint4 four = make_uint4(full, full, full, full);
  if (place.mask >= 0) four = __ldg(reinterpret_cast<const uint4*>(tiles.Mask(place)) + lane % 2);
  const HalfMask mask(four, lane % 2 != 0);
  const int64_t first = tiles.Value(place);
  Value eight[8];
  mask.ForBits<2>(lane / 2 * 2, [&](int j, int bit, int position) {
    eight[2 * j + bit] = position >= 0 && first + position < w.num_values ? values[first + position] : Value{0};
  });
  if (row >= w.n) return;
  Value* const to = dense + row * w.k + column;
  if (aligned) {
    if (column >= w.k) return;
    if constexpr (sizeof(Value) == 2) {
      const auto pair = [&](int i) { return eight[i] | static_cast<uint32_t>(eight[i + 1]) << 16; };
      Store16(to, make_uint4(pair(0), pair(2), pair(4), pair(6)));
    } else {
      Store16(to, make_uint4(eight[0], eight[1], eight[2], eight[3]));
      Store16(to + 4, make_uint4(eight[4], eight[5], eight[6], eight[7]));
    }
  } else {
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      if (column + i < w.k) to[i] = eight[i];
    }
  }
}

// Grid: panels.
template <class Value>
__global__ void __launch_bounds__(kTileThreads) TieredUnpackKernel(TieredBlocks w, bool aligned, Value* dense) {
  PRISM_DYNAMIC_SMEM(shared);
  const int64_t panel = blockIdx.x, all = w.Tiles();
  PanelTiles tiles(w, panel, shared);
  for (int64_t first = 0; first < all; first += kTileChunk) {
    const int count = tiles.Open(first);
    for (int tile = static_cast<int>(threadIdx.x) / 32; tile < count; tile += kTileWarps) {
      UnpackTile(w, tiles, tiles.Place(tile), panel, first + tile, aligned, dense);
    }
  }
}

template <class Value>
cudaError_t LaunchTyped(const TieredBlocks& w, Value* dense, cudaStream_t stream) {
  const bool aligned = w.k % 8 == 0 && reinterpret_cast<uintptr_t>(dense) % 16 == 0;
  return Launch(TieredUnpackKernel<Value>, static_cast<unsigned>(NumPanels(w.n)), kTileThreads, PanelTiles::kSharedBytes, stream,
                w, aligned, dense);
}

}  // namespace

cudaError_t TieredUnpack(const TieredBlocks& weight, void* dense, cudaStream_t stream) {
  if (weight.n == 0 || weight.k == 0) return cudaSuccess;
  if (weight.dtype == DType::kFloat32) return LaunchTyped(weight, static_cast<uint32_t*>(dense), stream);
  return LaunchTyped(weight, static_cast<uint16_t*>(dense), stream);
}

}  // namespace prism::cuda
