// obs_sweep: a block of columns, left to right; each is pruned and rounded, and its error moved into the columns to its
// right. Every operation is rounded on its own (no fused multiply-add), in the order of the torch reference, so that
// results are equal to its bit for bit.
#pragma once
#include <algorithm>
#include <cstdint>

#include "aligned_bytes.h"

namespace prism::cpu {

// The factor is read four columns at a time; element (i, c) is packed[(c / 4 * b + i) * 4 + c % 4].
inline constexpr int64_t kObsStrip = 4;

struct ObsSweepProblem {
  const float* weight;        // [n, b]
  const float* packed;        // the upper triangular factor, by PackObsFactor
  const uint8_t* mask;        // [n, b], 1 = kept; null: chosen by n:m where m > 0, otherwise all kept
  const float* column_scale;  // [b]
  const uint16_t* scale;      // bfloat16 [n, groups], given grids; null: found at each group's start
  const uint8_t* zero;        // [n, groups]
  int64_t b, n_keep, m, bits, group_size, groups;
  float* compensated;         // [n, b]
  float* error;               // [n, b]
  uint8_t* kept;              // [n, b]
  uint8_t* codes;             // [n, b] where bits > 0
  uint16_t* scale_out;        // bfloat16 [n, groups]
  uint8_t* zero_out;          // [n, groups]
};

inline int64_t PackedObsFactorSize(int64_t b) { return (b + kObsStrip - 1) / kObsStrip * kObsStrip * b; }
void PackObsFactor(const float* factor, int64_t b, float* packed);

// `size` zeros on whole cache lines: vectors that lie across two of them are read and written twice.
template <class T>
class ObsColumns {
 public:
  explicit ObsColumns(int64_t size) : bytes_(size * static_cast<int64_t>(sizeof(T))), size_(size) {
    std::fill(begin(), end(), T{});
  }

  T* data() { return reinterpret_cast<T*>(bytes_.data()); }
  T* begin() { return data(); }
  T* end() { return data() + size_; }
  T& operator[](int64_t i) { return data()[i]; }
  const T& operator[](int64_t i) const { return reinterpret_cast<const T*>(bytes_.data())[i]; }

 private:
  AlignedBytes bytes_;
  int64_t size_;
};

using ObsSweepFn = void (*)(const ObsSweepProblem& problem, int64_t begin_row, int64_t end_row);
namespace generic { void ObsSweep(const ObsSweepProblem&, int64_t, int64_t); }
namespace avx2 { void ObsSweep(const ObsSweepProblem&, int64_t, int64_t); }
namespace avx512 { void ObsSweep(const ObsSweepProblem&, int64_t, int64_t); }
ObsSweepFn PickObsSweep();

}  // namespace prism::cpu
