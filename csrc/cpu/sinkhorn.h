// sinkhorn: factors of the columns and rows of a matrix that even out their spreads, over kept entries only.
// The statistics come from sums of w and w^2 of the scaled matrix. Kernels sum in float, along one row or down one
// chunk of kSinkhornChunk rows; everything after that is in double. The chunks are the same whatever the number of
// threads, and their column sums are added in order, so that results do not depend on threads.
#pragma once
#include <cstdint>
#include <functional>

#include "../common/dtype.h"

namespace prism::cpu {

inline constexpr int64_t kSinkhornChunk = 128;  // a column's count in it fits a byte

// A few rows of a matrix. A row's bits say what is kept, bits past column k are 0; a null bitmap keeps all.
struct SinkhornRows {
  const void* weight;     // [rows, k], of the kernels' dtype
  const uint8_t* bitmap;  // [rows, bitmap_stride]: bit j % 8 of byte j / 8 is column j
  int64_t rows, k, bitmap_stride;
  int64_t prefetch_bytes;  // how far ahead of what they read kernels prefetch
};

// What is known of a row before the first iteration.
struct SinkhornRow {
  int32_t count;  // of kept entries
  bool live;      // two kept entries differ
  bool stray;     // a pruned entry is not 0
  float largest;  // magnitude of a kept entry
};

// Whether two kept entries of a line differ, from the bits that all of them have and those that any has. Zeros may differ
// in sign alone: a line of zeros has no other bit, and beside a number their magnitude tells them apart.
template <class Word>
inline bool SinkhornLive(Word all, Word any) { return all != any && static_cast<Word>(any << 1) != 0; }

struct SinkhornKernels {
  // `mask` [rows, k] holds 1 = kept, 0 = pruned; null keeps all. Writes the rows' bits (where there is a mask) and what
  // is known of them; adds to column_count; narrows column_all and widens column_any, words as wide as a weight.
  void (*prepare)(const SinkhornRows& in, const uint8_t* mask, uint8_t* bitmap, SinkhornRow* row, uint8_t* column_count,
                  void* column_all, void* column_any);
  // row_sum[i] = sum_j w[i, j] * column[j], row_square[i] = sum_j (w[i, j] * column[j])^2.
  void (*row_sums)(const SinkhornRows& in, const float* column, double* row_sum, double* row_square);
  // column_sum[j] += sum_i w[i, j] * row[i], column_square[j] += sum_i (w[i, j] * row[i])^2.
  void (*column_sums)(const SinkhornRows& in, const float* row, float* column_sum, float* column_square);
  // Both at once, each weight loaded once.
  void (*both_sums)(const SinkhornRows& in, const float* column, const float* row, double* row_sum, double* row_square,
                    float* column_sum, float* column_square);
  // column_square[j] += sum of w[i, j]^2 and column_count[j] += number of kept entries; all kept where `mask` is null.
  void (*squares)(const void* weight, const uint8_t* mask, int64_t rows, int64_t k, double* column_square,
                  int32_t* column_count);
};

namespace generic { extern const SinkhornKernels kSinkhornFloat32, kSinkhornBFloat16; }
namespace avx2 { extern const SinkhornKernels kSinkhornFloat32, kSinkhornBFloat16; }
namespace avx512 { extern const SinkhornKernels kSinkhornFloat32, kSinkhornBFloat16; }
const SinkhornKernels* PickSinkhorn(DType dtype);  // kFloat32 or kBFloat16

enum class SinkhornVariant { kSinq, kPrism, kRms };

struct SinkhornMatrix {
  const void* weight;    // [n, k] of dtype
  DType dtype;           // kFloat32 or kBFloat16
  const uint8_t* mask;   // [n, k], 1 = kept, 0 = pruned; null keeps everything
  int64_t n, k;
  float* column_factor;  // [k], out
  float* row_factor;     // [n], out
};

// Calls body(begin, end) for disjoint ranges that cover [0, count), possibly at once.
using SinkhornParallelFor = std::function<void(int64_t count, const std::function<void(int64_t, int64_t)>& body)>;

void Sinkhorn(const SinkhornKernels& kernels, const SinkhornMatrix& matrix, SinkhornVariant variant, int64_t iterations,
              const SinkhornParallelFor& parallel_for);

}  // namespace prism::cpu
