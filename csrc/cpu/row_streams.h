// Rows of variable length in one buffer, as streams that SIMD code may read past their end.
#pragma once
#include <cstdint>
#include <cstring>
#include <vector>

namespace prism::cpu {

// A row of at most `row_bytes` bytes, whatever its bitmap says, is followed by kSlack readable ones: it is read in
// place, or near the end of the buffer from a copy padded with 0. Kernels thus never leave the buffer, nor check for
// its end.
class RowStreams {
 public:
  static constexpr int64_t kSlack = 64;

  RowStreams(const void* data, int64_t size, int64_t row_bytes, int num_slots)
      : data_(static_cast<const uint8_t*>(data)), size_(size), needed_(row_bytes + kSlack),
        copies_(static_cast<size_t>(num_slots * needed_)) {}

  // The row that begins at byte `begin` <= size; valid until the next call for the same slot.
  const uint8_t* Get(int slot, int64_t begin) {
    const int64_t left = size_ - begin;
    if (left >= needed_) return data_ + begin;
    uint8_t* copy = copies_.data() + slot * needed_;
    if (left > 0) std::memcpy(copy, data_ + begin, static_cast<size_t>(left));
    std::memset(copy + left, 0, static_cast<size_t>(needed_ - left));
    return copy;
  }

 private:
  const uint8_t* data_;
  int64_t size_, needed_;
  std::vector<uint8_t> copies_;
};

}  // namespace prism::cpu
