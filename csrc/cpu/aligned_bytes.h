// Scratch memory of kernels.
#pragma once
#include <cstddef>
#include <cstdint>
#include <new>

namespace prism::cpu {

// 64-byte aligned scratch, so that no vector straddles two cache lines.
class AlignedBytes {
 public:
  explicit AlignedBytes(int64_t size)
      : data_(static_cast<uint8_t*>(::operator new(static_cast<size_t>(size), std::align_val_t{64}))) {}
  ~AlignedBytes() { ::operator delete(data_, std::align_val_t{64}); }
  AlignedBytes(const AlignedBytes&) = delete;
  AlignedBytes& operator=(const AlignedBytes&) = delete;
  uint8_t* data() const { return data_; }

 private:
  uint8_t* data_;
};

}  // namespace prism::cpu
