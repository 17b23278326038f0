// A bitmap weight as raw pointers: one bit per column, the kept weights row after row.
#pragma once
#include <algorithm>
#include <bit>
#include <cstdint>

#include "bitmap.h"
#include "row_streams.h"

namespace prism::cpu {

struct BitmapValues {
  const uint8_t* bitmap;       // [n, 8 * NumBlocks(k)]
  const void* values;          // [num_values] of dtype
  const int32_t* row_offsets;  // [n + 1], rising, within [0, num_values]
  int64_t num_values, k;
  DType dtype;

  int64_t ElementBytes() const { return DTypeBytes(dtype); }
  const uint8_t* RowBitmap(int64_t row) const { return bitmap + row * 8 * NumBlocks(k); }
  int64_t RowBegin(int64_t row) const { return row_offsets[row] * ElementBytes(); }  // in bytes
  RowStreams Streams(int num_slots) const {
    return RowStreams(values, num_values * ElementBytes(), NumBlocks(k) * kBlock * ElementBytes(), num_slots);
  }
};

// Calls keep(j, i) for every kept column j < k of a row, i its place in `values`; stops where the values end.
template <class Keep>
void ForEachKept(const BitmapValues& w, int64_t row, Keep keep) {
  const uint8_t* bitmap = w.RowBitmap(row);
  int64_t i = w.row_offsets[row];
  for (int64_t begin = 0; begin < w.k; begin += kBlock, bitmap += 8) {
    for (uint64_t mask = LoadMask(bitmap); mask != 0; mask &= mask - 1, ++i) {
      const int64_t j = begin + std::countr_zero(mask);
      if (j >= w.k || i >= w.num_values) return;
      keep(j, i);
    }
  }
}

}  // namespace prism::cpu
