// Bitmaps in panel order, and streams of survivors that a bitmap may promise too much of.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstring>

#include "../common/panels.h"

namespace prism::cpu {

inline constexpr int64_t kPairColumns = 2;
inline constexpr int64_t kPairMaskBytes = 4;  // of 16 rows x 2 columns
inline constexpr int64_t kQuadMaskBytes = 8;  // of 16 rows x 4 columns

inline int64_t NumPairs(int64_t k) { return CeilDiv(k, kPairColumns); }

// The bit of (row, column) in the mask of its pair (kColumns = 2) or quad (4).
template <int kColumns>
inline int64_t MaskBit(int64_t row, int64_t column) {
  const int64_t c = column % kColumns;
  return kColumns * row + (kColumns == 4 ? kQuadOrder[c] : c);
}

template <class Mask>
inline Mask LoadMask(const uint8_t* bytes) {
  Mask mask;
  std::memcpy(&mask, bytes, sizeof mask);
  return mask;
}

// kBytes readable bytes at any position of a stream: near its end and beyond they are a copy, padded with 0. Kernels
// may therefore read whole vectors and trust the bitmap's counts.
template <int64_t kBytes>
class GuardedStream {
 public:
  GuardedStream(const void* data, int64_t size) : data_(static_cast<const uint8_t*>(data)), size_(size) {}

  // Valid until the next call.
  const uint8_t* At(int64_t position) { return position + kBytes <= size_ ? data_ + position : CopyAt(position); }

 private:
  __attribute__((noinline)) const uint8_t* CopyAt(int64_t position) {
    const int64_t left = std::max<int64_t>(size_ - position, 0);
    std::memset(copy_, 0, sizeof copy_);
    if (left > 0) std::memcpy(copy_, data_ + position, static_cast<size_t>(left));
    return copy_;
  }

  const uint8_t* data_;
  int64_t size_;
  uint8_t copy_[kBytes];
};

}  // namespace prism::cpu
