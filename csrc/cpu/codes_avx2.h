// Unpacking of little-endian code streams, 32 codes at a time; included by the AVX2 kernels only.
#pragma once
#include "typed_avx2.h"

#if PRISM_X86
PRISM_TARGET_BEGIN(PRISM_TARGET_AVX2)
namespace prism::cpu::avx2 {

// 8 codes take `bits` bytes; pdep deposits them in the low bits of 8 bytes.
class Unpacker {
 public:
  explicit Unpacker(int bits) : bits_(bits), mask_(0x0101010101010101ull * ((1u << bits) - 1)) {}

  // Bytes that hold 32 codes.
  int64_t BlockBytes() const { return int64_t{4} * bits_; }

  // 32 codes, one per byte, from the stream at `packed`; codes whose bits lie beyond `available` bytes are unspecified
  // but within the width. Reads no byte beyond `available`.
  __m256i Load(const uint8_t* packed, int64_t available) const {
    uint8_t copy[40];
    if (available < 3 * bits_ + 8) {  // four reads of 8 bytes, the last one from byte 3 * bits on
      std::memset(copy, 0, sizeof copy);
      if (available > 0) std::memcpy(copy, packed, static_cast<size_t>(available < 32 ? available : 32));
      packed = copy;
    }
    if (bits_ == 8) return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(packed));
    return _mm256_setr_epi64x(Deposit(packed), Deposit(packed + bits_), Deposit(packed + 2 * bits_),
                              Deposit(packed + 3 * bits_));
  }

 private:
  long long Deposit(const uint8_t* packed) const {
    uint64_t word;
    std::memcpy(&word, packed, sizeof word);
    return static_cast<long long>(_pdep_u64(word, mask_));
  }
  int bits_;
  uint64_t mask_;
};

// `count` codes from the stream at `packed` to bytes.
static inline void UnpackStream(const Unpacker& unpacker, const uint8_t* packed, int64_t packed_bytes, int64_t count,
                                uint8_t* codes) {
  for (int64_t i = 0; i < count; i += 32) {
    const __m256i block = unpacker.Load(packed, packed_bytes);
    if (count - i >= 32) {
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(codes + i), block);
    } else {
      alignas(32) uint8_t copy[32];
      _mm256_store_si256(reinterpret_cast<__m256i*>(copy), block);
      std::memcpy(codes + i, copy, static_cast<size_t>(count - i));
    }
    packed += unpacker.BlockBytes();
    packed_bytes -= unpacker.BlockBytes();
  }
}

}  // namespace prism::cpu::avx2
PRISM_TARGET_END
#endif
