// What the kernels of sinkhorn.cu keep between launches, per matrix of the batch, all in one workspace.
#pragma once
#include "../common/panels.h"
#include "sinkhorn.cuh"

namespace prism::cuda {

// Rows whose column sums one block adds up, in float; blocks are added in their order, in double. Fixed, so that results
// do not depend on the device.
__host__ __device__ inline int64_t SinkhornChunk(int64_t k) { return k <= 256 ? 256 : 32; }

// One side of a matrix, its columns or its rows.
struct SinkhornLines {
  double *factor, *best, *spread;
  float* inverse;  // unit / factor
  int32_t* count;  // of kept entries
  bool* live;      // two kept entries differ
};

struct SinkhornState {
  SinkhornLines columns, rows;
  float* largest;                    // [n], magnitude of a kept entry
  float *chunk_sum, *chunk_square;   // [chunks, k]; before the first iteration the lowest and highest kept entries
  int32_t* chunk_count;              // [chunks, k]
  double* scalars;                   // least imbalance, target, unit (a power of two that brings the matrix near 1)
  int32_t* stopped;
  void* kept;                        // [n, k], the weights with zeros where pruned; null without a mask
};

// Gives out pieces of memory, or with a null base only counts them.
struct Cutter {
  unsigned char* base;
  int64_t used = 0;

  template <class T>
  __host__ __device__ T* Take(int64_t count) {
    T* piece = reinterpret_cast<T*>(reinterpret_cast<uintptr_t>(base) + static_cast<uintptr_t>(used));
    used += (count * static_cast<int64_t>(sizeof(T)) + 15) / 16 * 16;
    return piece;
  }
  __host__ __device__ SinkhornLines Lines(int64_t size) {
    SinkhornLines lines;
    lines.factor = Take<double>(size);
    lines.best = Take<double>(size);
    lines.spread = Take<double>(size);
    lines.inverse = Take<float>(size);
    lines.count = Take<int32_t>(size);
    lines.live = Take<bool>(size);
    return lines;
  }
};

__host__ __device__ inline SinkhornState CutState(Cutter& cutter, DType dtype, bool masked, int64_t n, int64_t k) {
  const int64_t partial = CeilDiv(n, SinkhornChunk(k)) * k;
  SinkhornState state;
  state.columns = cutter.Lines(k);
  state.rows = cutter.Lines(n);
  state.largest = cutter.Take<float>(n);
  state.chunk_sum = cutter.Take<float>(partial);
  state.chunk_square = cutter.Take<float>(partial);
  state.chunk_count = cutter.Take<int32_t>(partial);
  state.scalars = cutter.Take<double>(3);
  state.stopped = cutter.Take<int32_t>(1);
  state.kept = masked ? cutter.Take<unsigned char>(n * k * DTypeBytes(dtype)) : nullptr;
  return state;
}

__host__ __device__ inline int64_t StateBytes(DType dtype, bool masked, int64_t n, int64_t k) {
  Cutter cutter{nullptr};
  CutState(cutter, dtype, masked, n, k);
  return cutter.used;
}

// The matrix that a block works on: blockIdx.z of the batch.
template <class T>
struct SinkhornMatrix {
  const T* weight;   // as given
  const bool* mask;  // or null
  const T* kept;     // zeros where pruned
  int64_t n, k, chunks;
  SinkhornState state;

  __device__ explicit SinkhornMatrix(const SinkhornArgs& a) : n(a.n), k(a.k), chunks(CeilDiv(a.n, SinkhornChunk(a.k))) {
    const int64_t index = blockIdx.z;
    Cutter cutter{a.workspace + index * StateBytes(a.dtype, a.mask != nullptr, n, k)};
    state = CutState(cutter, a.dtype, a.mask != nullptr, n, k);
    weight = static_cast<const T*>(a.weight) + index * n * k;
    mask = a.mask != nullptr ? a.mask + index * n * k : nullptr;
    kept = mask != nullptr ? static_cast<const T*>(state.kept) : weight;
  }
  __device__ bool Keeps(int64_t at) const { return mask == nullptr || mask[at]; }
};

__device__ inline float Widen(float weight) { return weight; }
__device__ inline float Widen(uint16_t weight) { return BFloat16ToFloat(weight); }

inline constexpr double kPrismLowest = 4.5399929762484854e-05, kPrismHighest = 22026.465794806718;  // e^-10, e^10

// Where sum of squares - sum^2 / count is smaller than this part of the sum of squares, too few bits are left of it.
inline constexpr double kCancellation = 1.0 / 32;

}  // namespace prism::cuda
