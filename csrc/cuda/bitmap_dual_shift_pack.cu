// A thread marks or gathers a quad of columns of a panel: its codes begin at a whole byte, so that no two threads write
// the same one.
#include "bitmap_dual_shift_pack.cuh"

#include "common/bitmap.cuh"

namespace prism::cuda {
namespace {

constexpr int kMarkBytes = kUnitWarps * sizeof(int64_t);

__global__ void BitmapDualShiftGatherKernel(const uint8_t* __restrict__ codes, const uint8_t* __restrict__ bitmap,
                                            const int64_t* __restrict__ panel_offsets, int64_t k, int bits,
                                            uint8_t* __restrict__ packed) {
  PRISM_DYNAMIC_SMEM(shared);
  const int64_t panel = blockIdx.x;
  const uint8_t* rows = codes + panel * kPanelRows * k;
  const uint32_t low = (1u << bits) - 1;
  ForUnits<4>(
      bitmap, panel, NumQuads(k), panel_offsets[panel], bits, shared,
      [&](int64_t quad, const Unit<4>& mask, int64_t position) {
        uint8_t* to = packed + position;
        uint32_t pending = 0;
        int held = 0;  // bits of `pending` that are not yet written
        for (int word = 0; word < 2; ++word) {
          for (uint32_t left = mask.words[word]; left != 0; left &= left - 1) {
            const int bit = __ffs(static_cast<int>(left)) - 1, row = 8 * word + bit / 4;
            pending |= (rows[row * k + 4 * quad + UnitColumn<4>(bit % 4)] & low) << held;
            held += bits;
            if (held >= 8) {
              *to++ = static_cast<uint8_t>(pending);
              pending >>= 8;
              held -= 8;
            }
          }
        }
        if (held > 0) *to = static_cast<uint8_t>(pending);
      },
      [](int64_t) {});
}

}  // namespace

cudaError_t BitmapDualShiftMark(const BitmapDualShiftPackArgs& a, cudaStream_t stream) {
  const int64_t panels = NumPanels(a.n);
  if (panels > 0) {
    const Kept<uint8_t> kept{a.codes, a.mask};
    const cudaError_t error = Launch(BitmapMarkKernel<4, uint8_t>, static_cast<unsigned>(panels), kUnitThreads, kMarkBytes,
                                     stream, kept, a.n, a.k, a.bits, a.bitmap, a.panel_offsets);
    if (error != cudaSuccess) return error;
  }
  return SumPanelOffsets(a.panel_offsets, panels, stream);
}

cudaError_t BitmapDualShiftGather(const BitmapDualShiftPackArgs& a, cudaStream_t stream) {
  const int64_t panels = NumPanels(a.n);
  if (panels == 0) return cudaSuccess;
  return Launch(BitmapDualShiftGatherKernel, static_cast<unsigned>(panels), kUnitThreads, kUnitBytesOfShared, stream,
                a.codes, a.bitmap, a.panel_offsets, a.k, a.bits, a.packed);
}

}  // namespace prism::cuda
