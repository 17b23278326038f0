// What the kernels over bitmaps in panel order share: masks of a unit (a pair or quad of columns of a panel of 16 rows),
// sums over the threads of a block, and the two steps of packing. A block takes a panel, a thread a unit.
#pragma once
#include <type_traits>

#include "../../common/codebooks.h"
#include "../../common/panels.h"
#include "ptx.cuh"

namespace prism::cuda {

inline constexpr int kUnitThreads = 128;
inline constexpr int kUnitWarps = kUnitThreads / 32;
inline constexpr int kUnitBytesOfShared = kUnitWarps * static_cast<int>(sizeof(int));  // for ScanUnits

// Columns of a unit: 2 for values, 4 for codes; `bits` of a code, 0 for values.
template <int kColumns>
struct Unit {
  static constexpr int kWords = kColumns / 2;  // of 32 bits
  static constexpr int kBytes = 4 * kWords;

  uint32_t words[kWords];

  static __device__ Unit Load(const uint8_t* bitmap, int64_t unit) {
    Unit mask;
    const auto* from = reinterpret_cast<const uint32_t*>(bitmap) + unit * kWords;
    for (int i = 0; i < kWords; ++i) mask.words[i] = from[i];
    return mask;
  }

  __device__ void Store(uint8_t* bitmap, int64_t unit) const {
    auto* to = reinterpret_cast<uint32_t*>(bitmap) + unit * kWords;
    for (int i = 0; i < kWords; ++i) to[i] = words[i];
  }

  __device__ int Count() const {
    int count = 0;
    for (int i = 0; i < kWords; ++i) count += __popc(words[i]);
    return count;
  }

  // The bits of one row, column kQuadOrder[b] of a quad in bit b.
  __device__ uint32_t Row(int row) const {
    const uint32_t word = row < kPanelRows / kWords ? words[0] : words[kWords - 1];  // no index: words stay in registers
    return word >> kColumns * row % 32 & ((1u << kColumns) - 1);
  }

  // What the survivors take: values, or for codes whole bytes.
  __device__ int Size(int bits) const { return bits == 0 ? Count() : static_cast<int>(PackedBytes(Count(), bits)); }
};

// The column, within its unit, of bit b of a row.
template <int kColumns>
__device__ inline int UnitColumn(int b) {
  return kColumns == 2 ? b : (b & 1) * 2 + (b >> 1);  // kQuadOrder
}

template <class T>
__device__ inline T SumOfWarp(T value) {
  for (int lanes = 16; lanes > 0; lanes /= 2) value += __shfl_xor_sync(0xffffffffu, value, lanes);
  return value;
}

template <class T>
__device__ inline T ScanOfWarp(T value) {  // inclusive
  if constexpr (std::is_same_v<T, int>) {
    for (int lanes = 1; lanes < 32; lanes *= 2) value = AddFromBelow(value, lanes);
  } else {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    for (int lanes = 1; lanes < 32; lanes *= 2) {
      const T below = __shfl_up_sync(0xffffffffu, value, static_cast<unsigned>(lanes));
      if (lane >= lanes) value += below;
    }
  }
  return value;
}

// The sum of `value` over the threads below this one, and of all threads in *total. Every thread of the block calls it;
// `warps` is shared memory, one T per warp.
template <class T>
__device__ inline T ScanOfBlock(T value, T* warps, T* total) {
  const int warp = static_cast<int>(threadIdx.x) / 32, count = static_cast<int>(blockDim.x) / 32;
  const T inclusive = ScanOfWarp(value);
  __syncthreads();  // the sums of the call before are read
  if (threadIdx.x % 32 == 31) warps[warp] = inclusive;
  __syncthreads();
  T before = 0, all = 0;
  for (int i = 0; i < count; ++i) {
    before += i < warp ? warps[i] : T{0};
    all += warps[i];
  }
  *total = all;
  return before + inclusive - value;
}

// What the marks of a panel are made of: kept[i] says it where there is a mask, otherwise a value other than zero of
// either sign; NaN is kept.
template <class T>
struct Kept {
  const T* values;   // [n, k]
  const bool* mask;  // [n, k], or null
  __device__ bool operator()(int64_t i) const { return mask != nullptr ? mask[i] : static_cast<T>(values[i] << 1) != 0; }
};

// Writes the bitmap of a panel and, at panel_offsets[panel + 1], the size of its survivors.
template <int kColumns, class T>
__global__ void BitmapMarkKernel(Kept<T> kept, int64_t n, int64_t k, int bits, uint8_t* __restrict__ bitmap,
                                 int64_t* __restrict__ panel_offsets) {
  PRISM_DYNAMIC_SMEM(shared);
  const int64_t panel = blockIdx.x, units = CeilDiv(k, kColumns);
  const int rows = static_cast<int>(min(kPanelRows, n - panel * kPanelRows));
  int64_t size = 0;
  for (int64_t unit = threadIdx.x; unit < units; unit += kUnitThreads) {
    Unit<kColumns> mask = {};
    for (int row = 0; row < rows; ++row) {
      const int64_t first = (panel * kPanelRows + row) * k + unit * kColumns;
      for (int b = 0; b < kColumns; ++b) {
        const int column = UnitColumn<kColumns>(b), bit = kColumns * row + b;
        if (unit * kColumns + column < k && kept(first + column)) mask.words[bit / 32] |= 1u << bit % 32;
      }
    }
    mask.Store(bitmap, panel * units + unit);
    size += mask.Size(bits);
  }
  int64_t total;
  ScanOfBlock(size, reinterpret_cast<int64_t*>(shared), &total);
  if (threadIdx.x == 0) panel_offsets[panel + 1] = total;
}

// Calls body(unit, mask, position) for every unit of a panel, a thread each and kUnitThreads at a time, then
// after(first unit of the tile); `position` is where the unit's survivors begin. `shared`: kUnitBytesOfShared.
template <int kColumns, class Body, class After>
__device__ inline void ForUnits(const uint8_t* bitmap, int64_t panel, int64_t units, int64_t position, int bits,
                                unsigned char* shared, Body body, After after) {
  for (int64_t first = 0; first < units; first += kUnitThreads) {
    const int64_t unit = first + threadIdx.x;
    Unit<kColumns> mask = {};
    if (unit < units) mask = Unit<kColumns>::Load(bitmap, panel * units + unit);
    int total;
    const int below = ScanOfBlock(mask.Size(bits), reinterpret_cast<int*>(shared), &total);
    if (unit < units) body(unit, mask, position + below);
    after(first);
    position += total;
  }
}

// Sums the sizes at panel_offsets[panel + 1] up to where panels begin; asynchronous. Defined in bitmap_pack.cu.
cudaError_t SumPanelOffsets(int64_t* panel_offsets, int64_t panels, cudaStream_t stream);

}  // namespace prism::cuda
