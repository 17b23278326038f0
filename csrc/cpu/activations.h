// Activations and results of the bitmap linears. A kernel reads rows of whole 64-column blocks, 0 past k.
#pragma once
#include <algorithm>
#include <vector>

#include "../common/dtype.h"
#include "bitmap.h"

namespace prism::cpu {

inline int64_t PaddedColumns(int64_t k) { return NumBlocks(k) * kBlock; }

// values[j] = x[j] * column_scale[j] in natural order, 0 past k; column_scale is bf16 or null.
inline void ScaleRow(const void* x, DType dtype, int64_t row, int64_t k, const uint16_t* column_scale, float* values) {
  const int64_t base = row * k;
  if (dtype == DType::kFloat32) {
    std::copy_n(static_cast<const float*>(x) + base, k, values);
  } else if (dtype == DType::kBFloat16) {
    const uint16_t* bits = static_cast<const uint16_t*>(x) + base;
    for (int64_t j = 0; j < k; ++j) values[j] = BFloat16ToFloat(bits[j]);
  } else {
    const uint16_t* bits = static_cast<const uint16_t*>(x) + base;
    for (int64_t j = 0; j < k; ++j) values[j] = Float16ToFloat(bits[j]);
  }
  if (column_scale != nullptr) {
    for (int64_t j = 0; j < k; ++j) values[j] *= BFloat16ToFloat(column_scale[j]);
  }
  std::fill(values + k, values + PaddedColumns(k), 0.0f);
}

// x [rows, k] times column_scale -> float32 [rows, PaddedColumns(k)].
inline std::vector<float> FloatActivations(const void* x, DType dtype, int64_t rows, int64_t k,
                                           const uint16_t* column_scale) {
  const int64_t columns = PaddedColumns(k);
  std::vector<float> out(static_cast<size_t>(rows * columns));
  for (int64_t row = 0; row < rows; ++row) ScaleRow(x, dtype, row, k, column_scale, out.data() + row * columns);
  return out;
}

// x bf16 [rows, k] -> [NumBlocks(k), rows, 64].
inline std::vector<uint16_t> BFloat16Activations(const void* x, int64_t rows, int64_t k) {
  std::vector<uint16_t> out(static_cast<size_t>(rows * PaddedColumns(k)));
  for (int64_t row = 0; row < rows; ++row) {
    const uint16_t* in = static_cast<const uint16_t*>(x) + row * k;
    for (int64_t j = 0; j < k; j += kBlock) {
      std::copy_n(in + j, std::min(kBlock, k - j), out.data() + j * rows + row * kBlock);
    }
  }
  return out;
}

// x [rows, k] times column_scale as two bf16 parts, high and low, whose sum has 16 significant bits: exact for bf16 x.
// [NumBlocks(k), rows, 4, 32]: high parts of the block's even columns, of its odd columns, low parts of both.
inline std::vector<uint16_t> SplitActivations(const void* x, DType dtype, int64_t rows, int64_t k,
                                              const uint16_t* column_scale) {
  const int64_t columns = PaddedColumns(k);
  std::vector<float> values(static_cast<size_t>(columns));
  std::vector<uint16_t> out(static_cast<size_t>(rows * columns * 2));
  for (int64_t row = 0; row < rows; ++row) {
    ScaleRow(x, dtype, row, k, column_scale, values.data());
    for (int64_t begin = 0; begin < columns; begin += kBlock) {
      uint16_t* block = out.data() + (begin * rows + row * kBlock) * 2;
      for (int64_t j = 0; j < kBlock; ++j) {
        const int64_t place = j % 2 * (kBlock / 2) + j / 2;
        const uint16_t high = FloatToBFloat16(values[begin + j]);
        block[place] = high;
        block[kBlock + place] = FloatToBFloat16(values[begin + j] - BFloat16ToFloat(high));
      }
    }
  }
  return out;
}

// y[r, i] = sums[r, i] + bias[i] for the columns i of [begin, end), rounded once to dtype; all rows have n columns.
inline void StoreColumns(const float* sums, const void* bias, int64_t rows, int64_t n, int64_t begin, int64_t end,
                         DType dtype, void* y) {
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t i = begin; i < end; ++i) {
      const float shift = bias != nullptr ? LoadFloat(bias, dtype, i) : 0.0f;
      StoreFloat(sums[r * n + i] + shift, y, dtype, r * n + i);
    }
  }
}

}  // namespace prism::cpu
