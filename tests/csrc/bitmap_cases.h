// Random masks and their bitmaps in exact-size buffers, and bitmaps that promise more than is stored.
#pragma once
#include <cmath>
#include <vector>

#include "check.h"
#include "common/codebooks.h"
#include "cpu/bitmap.h"

namespace prism::test {

constexpr int64_t kBitmapRows = 37;  // three panels, the last of 5 rows
constexpr int64_t kBitmapColumns[] = {1, 2, 3, 4, 7, 31, 32, 33, 63, 64, 65, 130, 200};
constexpr int kBitmapWidths[] = {2, 3, 4, 5, 6, 8};

// Row 0 is dead, row 20 full, the others as dense as chance has it.
inline Buffer<bool> RandomMask(int64_t k) {
  Buffer<bool> mask(kBitmapRows * k);
  for (int64_t row = 0; row < kBitmapRows; ++row) {
    const int64_t density = row == 0 ? 0 : row == 20 ? 100 : RandomInt(0, 100);
    for (int64_t j = 0; j < k; ++j) mask[row * k + j] = RandomInt(1, 100) <= density;
  }
  return mask;
}

// The mask as bits, kColumns columns to a unit, and where panels begin: in elements, or in bytes of codes of `bits`.
template <int kColumns>
struct Bitmap {
  Bitmap(Buffer<bool>& mask, int64_t k, int bits)
      : bytes(NumPanels(kBitmapRows) * CeilDiv(k, kColumns) * 2 * kColumns), offsets(NumPanels(kBitmapRows) + 1) {
    const int64_t units = CeilDiv(k, kColumns);
    std::vector<int64_t> kept(static_cast<size_t>(NumPanels(kBitmapRows) * units));
    for (int64_t i = 0; i < bytes.size(); ++i) bytes[i] = 0;
    for (int64_t row = 0; row < kBitmapRows; ++row) {
      for (int64_t j = 0; j < k; ++j) {
        if (!mask[row * k + j]) continue;
        const int64_t unit = row / kPanelRows * units + j / kColumns;
        const int64_t bit = cpu::MaskBit<kColumns>(row % kPanelRows, j);
        bytes[unit * 2 * kColumns + bit / 8] |= static_cast<uint8_t>(1 << bit % 8);
        ++kept[static_cast<size_t>(unit)];
      }
    }
    offsets[0] = 0;
    for (int64_t panel = 0; panel < NumPanels(kBitmapRows); ++panel) {
      offsets[panel + 1] = offsets[panel];
      for (int64_t unit = panel * units; unit < (panel + 1) * units; ++unit) {
        const int64_t count = kept[static_cast<size_t>(unit)];
        offsets[panel + 1] += bits == 0 ? count : PackedBytes(count, bits);
      }
    }
  }

  int64_t Size() { return offsets[offsets.size() - 1]; }

  // Ones over the same short stream: kernels may compute anything, but must not read behind it.
  void PromiseTooMuch() {
    for (int64_t i = 0; i < bytes.size(); ++i) bytes[i] = 0xff;
  }

  Buffer<uint8_t> bytes;
  Buffer<int64_t> offsets;
};

inline Buffer<uint8_t> RandomBytes(int64_t count, int64_t highest = 255) {
  Buffer<uint8_t> bytes(count);
  for (int64_t i = 0; i < count; ++i) bytes[i] = static_cast<uint8_t>(RandomInt(0, highest));
  return bytes;
}

template <class T>
void CheckEqual(Buffer<T>& actual, Buffer<T>& expected, const char* what, int64_t k, int64_t other) {
  for (int64_t i = 0; i < actual.size(); ++i) {
    PRISM_CHECK(actual[i] == expected[i], "%s k=%ld (%ld) element %ld", what, k, other, i);
  }
}

}  // namespace prism::test
