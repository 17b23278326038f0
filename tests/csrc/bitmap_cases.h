// Random bitmap weights in exact-size buffers: rows of every density, and bitmaps that promise more than is stored.
#pragma once
#include <cmath>
#include <vector>

#include "check.h"
#include "cpu/bitmap_dual_shift.h"
#include "cpu/bitmap_values.h"

namespace prism::test {

inline const std::vector<int64_t> kColumns = {1, 7, 63, 64, 65, 127, 200, 448};
constexpr int64_t kRows = 7;

// Row 0 is dead, the last one full, the others as dense as chance has it.
inline Buffer<uint8_t> RandomBitmap(int64_t k) {
  Buffer<uint8_t> bitmap(kRows * 8 * cpu::NumBlocks(k));
  for (int64_t i = 0; i < bitmap.size(); ++i) bitmap[i] = 0;
  for (int64_t row = 0; row < kRows; ++row) {
    const int64_t density = row == 0 ? 0 : row == kRows - 1 ? 100 : RandomInt(0, 100);
    for (int64_t j = 0; j < k; ++j) {
      if (RandomInt(1, 100) <= density) bitmap[row * 8 * cpu::NumBlocks(k) + j / 8] |= static_cast<uint8_t>(1 << j % 8);
    }
  }
  return bitmap;
}

// Where rows begin: elements, or bytes of codes of `bits`.
inline std::vector<int32_t> Offsets(Buffer<uint8_t>& bitmap, int64_t k, int bits) {
  std::vector<int32_t> offsets = {0};
  for (int64_t row = 0; row < kRows; ++row) {
    int64_t size = 0;
    for (int64_t b = 0; b < cpu::NumBlocks(k); ++b) {
      const int64_t kept = std::popcount(cpu::LoadMask(bitmap.data() + (row * cpu::NumBlocks(k) + b) * 8));
      size += bits == 0 ? kept : PackedBytes(kept, bits);
    }
    offsets.push_back(offsets.back() + static_cast<int32_t>(size));
  }
  return offsets;
}

// A bitmap of ones over the same short stream: kernels may compute anything, but must not read behind it.
inline void SetAll(Buffer<uint8_t>& bitmap) {
  for (int64_t i = 0; i < bitmap.size(); ++i) bitmap[i] = 0xff;
}

inline void CheckClose(float actual, float expected, float scale, const char* what) {
  PRISM_CHECK(std::abs(actual - expected) <= 1e-5f * scale, "%s: got %g, expected %g", what, actual, expected);
}

// Calls body(weight, valid) for random grids of every width and group size; not valid: the bitmap promises too much.
template <class Body>
void ForEachDualShift(const Body& body) {
  for (const int64_t k : kColumns) {
    for (const int bits : {2, 3, 4, 5, 6, 8}) {
      for (const int64_t group_size : {int64_t{1}, int64_t{5}, int64_t{16}, int64_t{32}, int64_t{64}, int64_t{128}, k}) {
        const int64_t num_groups = CeilDiv(k, group_size);
        Buffer<uint8_t> bitmap = RandomBitmap(k);
        const std::vector<int32_t> offsets = Offsets(bitmap, k, bits);
        Buffer<uint8_t> codes(offsets.back()), zero(kRows * PackedBytes(num_groups, bits));
        Buffer<uint16_t> scale(kRows * num_groups);
        for (int64_t i = 0; i < codes.size(); ++i) codes[i] = static_cast<uint8_t>(RandomInt(0, 255));
        for (int64_t i = 0; i < zero.size(); ++i) zero[i] = static_cast<uint8_t>(RandomInt(0, 255));
        for (int64_t i = 0; i < scale.size(); ++i) scale[i] = FloatToBFloat16(0.5f + std::abs(RandomNormal()));
        for (const Codebook book : {Codebook::kUniform, Codebook::kNf4, Codebook::kNf3}) {
          const float* levels = CodebookLevels(book);
          if (levels != nullptr && CodebookSize(book) != 1 << bits) continue;
          const int zero_level = levels == nullptr ? 0 : book == Codebook::kNf4 ? 7 : 3;
          const cpu::BitmapDualShift weight{bitmap.data(), codes.data(), offsets.data(), scale.data(), zero.data(), levels,
                                            codes.size(), k, std::min(group_size, k), num_groups, bits, zero_level};
          body(weight, true);
        }
        SetAll(bitmap);
        body(cpu::BitmapDualShift{bitmap.data(), codes.data(), offsets.data(), scale.data(), zero.data(), nullptr,
                                  codes.size(), k, std::min(group_size, k), num_groups, bits, 0},
             false);
      }
    }
  }
}

// The same for weights with values, of every dtype.
template <class Body>
void ForEachValues(const Body& body) {
  for (const int64_t k : kColumns) {
    for (const DType dtype : {DType::kFloat32, DType::kFloat16, DType::kBFloat16}) {
      Buffer<uint8_t> bitmap = RandomBitmap(k);
      const std::vector<int32_t> offsets = Offsets(bitmap, k, 0);
      Buffer<uint8_t> values(offsets.back() * DTypeBytes(dtype));
      for (int64_t i = 0; i < offsets.back(); ++i) StoreFloat(RandomNormal(), values.data(), dtype, i);
      const cpu::BitmapValues weight{bitmap.data(), values.data(), offsets.data(), offsets.back(), k, dtype};
      body(weight, true);
      SetAll(bitmap);
      body(weight, false);
    }
  }
}

inline Buffer<float> RandomActivations(int64_t m, int64_t k) {
  Buffer<float> x(m * k);
  for (int64_t i = 0; i < x.size(); ++i) x[i] = BFloat16ToFloat(FloatToBFloat16(RandomNormal()));
  return x;
}

}  // namespace prism::test
