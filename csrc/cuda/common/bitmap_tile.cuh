// A tile of decoded weights in shared memory, [16, kUnitThreads units]: each thread stores its unit row by row, then all
// write the tile to a row-major matrix.
#pragma once
#include "bitmap.cuh"

namespace prism::cuda {

template <int kColumns, class T>
class UnitTile {
 public:
  static constexpr int kWidth = kColumns * kUnitThreads;
  static constexpr int kBytes = kWidth * static_cast<int>(kPanelRows * sizeof(T));

  explicit __device__ UnitTile(unsigned char* shared) : data_(reinterpret_cast<T*>(shared)) {}

  // The row of this thread's unit, columns in their natural order: one word or vector of neighbours, without conflicts
  // between banks.
  __device__ void Store(int row, const T (&values)[kColumns]) const {
    struct alignas(sizeof(T) * kColumns) Vector {
      T values[kColumns];
    } vector;
    for (int i = 0; i < kColumns; ++i) vector.values[i] = values[i];
    reinterpret_cast<Vector*>(data_ + row * kWidth)[threadIdx.x] = vector;
  }

  // The tile of the units from `first` on, into weight [n, k] at the rows of `panel`; every thread of the block calls it.
  __device__ void Write(T* weight, int64_t panel, int64_t first, int64_t n, int64_t k) const {
    __syncthreads();
    const int rows = static_cast<int>(min(kPanelRows, n - panel * kPanelRows));
    const int64_t column = first * kColumns;
    const int columns = static_cast<int>(min(static_cast<int64_t>(kWidth), k - column));
    T* const to = weight + panel * kPanelRows * k + column;
    constexpr int kVector = 16 / static_cast<int>(sizeof(T));
    const bool vectors = k % kVector == 0 && reinterpret_cast<uintptr_t>(weight) % 16 == 0;
    if (vectors) {
      const int per_row = columns / kVector;
      for (int i = static_cast<int>(threadIdx.x); i < rows * per_row; i += kUnitThreads) {
        const int row = i / per_row, at = i % per_row * kVector;
        *reinterpret_cast<uint4*>(to + row * k + at) = *reinterpret_cast<const uint4*>(data_ + row * kWidth + at);
      }
    } else {
      for (int row = 0; row < rows; ++row) {
        for (int at = static_cast<int>(threadIdx.x); at < columns; at += kUnitThreads) to[row * k + at] = data_[row * kWidth + at];
      }
    }
    __syncthreads();
  }

 private:
  T* data_;
};

}  // namespace prism::cuda
