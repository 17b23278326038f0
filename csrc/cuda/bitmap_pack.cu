// A thread marks or gathers a pair of columns of a panel; positions are sums over the threads of a block.
#include "bitmap_pack.cuh"

#include "common/bitmap.cuh"

namespace prism::cuda {
namespace {

constexpr int kSumThreads = 1024;
constexpr int kSumBytes = kSumThreads / 32 * sizeof(int64_t);
constexpr int kMarkBytes = kUnitWarps * sizeof(int64_t);

__global__ void SumPanelOffsetsKernel(int64_t* panel_offsets, int64_t panels) {
  PRISM_DYNAMIC_SMEM(shared);
  int64_t sum = 0;
  for (int64_t first = 0; first < panels; first += kSumThreads) {
    const int64_t panel = first + threadIdx.x;
    const int64_t size = panel < panels ? panel_offsets[panel + 1] : 0;
    int64_t total;
    const int64_t below = ScanOfBlock(size, reinterpret_cast<int64_t*>(shared), &total);
    if (panel < panels) panel_offsets[panel + 1] = sum + below + size;
    sum += total;
  }
  if (threadIdx.x == 0) panel_offsets[0] = 0;
}

template <class T>
__global__ void BitmapGatherKernel(const T* __restrict__ weight, const uint8_t* __restrict__ bitmap,
                                   const int64_t* __restrict__ panel_offsets, int64_t k, T* __restrict__ values) {
  PRISM_DYNAMIC_SMEM(shared);
  const int64_t panel = blockIdx.x;
  const T* rows = weight + panel * kPanelRows * k;
  ForUnits<2>(
      bitmap, panel, CeilDiv(k, 2), panel_offsets[panel], 0, shared,
      [&](int64_t pair, const Unit<2>& mask, int64_t position) {
        T* to = values + position;
        for (uint32_t left = mask.words[0]; left != 0; left &= left - 1) {
          const int bit = __ffs(static_cast<int>(left)) - 1;
          *to++ = rows[bit / 2 * k + 2 * pair + bit % 2];
        }
      },
      [](int64_t) {});
}

template <class T>
cudaError_t Mark(const BitmapPackArgs& a, int64_t panels, cudaStream_t stream) {
  const Kept<T> kept{static_cast<const T*>(a.weight), a.mask};
  return Launch(BitmapMarkKernel<2, T>, static_cast<unsigned>(panels), kUnitThreads, kMarkBytes, stream, kept, a.n, a.k,
                0, a.bitmap, a.panel_offsets);
}

template <class T>
cudaError_t Gather(const BitmapPackArgs& a, int64_t panels, cudaStream_t stream) {
  return Launch(BitmapGatherKernel<T>, static_cast<unsigned>(panels), kUnitThreads, kUnitBytesOfShared, stream,
                static_cast<const T*>(a.weight), a.bitmap, a.panel_offsets, a.k, static_cast<T*>(a.values));
}

}  // namespace

cudaError_t SumPanelOffsets(int64_t* panel_offsets, int64_t panels, cudaStream_t stream) {
  return Launch(SumPanelOffsetsKernel, 1, kSumThreads, kSumBytes, stream, panel_offsets, panels);
}

cudaError_t BitmapMark(const BitmapPackArgs& a, cudaStream_t stream) {
  const int64_t panels = NumPanels(a.n);
  if (panels > 0) {
    const cudaError_t error = a.element_bytes == 2 ? Mark<uint16_t>(a, panels, stream) : Mark<uint32_t>(a, panels, stream);
    if (error != cudaSuccess) return error;
  }
  return SumPanelOffsets(a.panel_offsets, panels, stream);
}

cudaError_t BitmapGather(const BitmapPackArgs& a, cudaStream_t stream) {
  const int64_t panels = NumPanels(a.n);
  if (panels == 0) return cudaSuccess;
  return a.element_bytes == 2 ? Gather<uint16_t>(a, panels, stream) : Gather<uint32_t>(a, panels, stream);
}

}  // namespace prism::cuda
