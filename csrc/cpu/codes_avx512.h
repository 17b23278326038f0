// Unpacking of little-endian code streams, 64 codes at a time; included by the AVX-512 kernels only.
#pragma once
#include "typed_avx512.h"

#if PRISM_X86
PRISM_TARGET_BEGIN(PRISM_TARGET_AVX512)
namespace prism::cpu::avx512 {

// 8 codes take `bits` bytes: bytes are spread so that each 64-bit lane holds the bits of its 8 codes, then a multishift
// moves code i of a lane to its byte i.
class Unpacker {
 public:
  explicit Unpacker(int bits) : bits_(bits), mask_(_mm512_set1_epi8(static_cast<char>((1 << bits) - 1))) {
    alignas(64) uint8_t spread[64], shifts[64];
    for (int i = 0; i < 64; ++i) {
      spread[i] = static_cast<uint8_t>((i / 8) * bits + (i % 8) % bits);
      shifts[i] = static_cast<uint8_t>((i % 8) * bits);
    }
    spread_ = _mm512_load_si512(spread);
    shifts_ = _mm512_load_si512(shifts);
  }

  // Bytes that hold 64 codes.
  int64_t BlockBytes() const { return int64_t{8} * bits_; }

  // 64 codes, one per byte, from the stream at `packed`; codes whose bits lie beyond `available` bytes are unspecified
  // but within the width. Reads no byte beyond `available`.
  __m512i Load(const uint8_t* packed, int64_t available) const {
    const int64_t bytes = available < BlockBytes() ? available : BlockBytes();
    const __m512i stream = _mm512_maskz_loadu_epi8(LowMask64(bytes), packed);
    if (bits_ == 8) return stream;
    return _mm512_and_si512(_mm512_multishift_epi64_epi8(shifts_, _mm512_permutexvar_epi8(spread_, stream)), mask_);
  }

 private:
  int bits_;
  __m512i mask_, spread_, shifts_;
};

// `count` codes from the stream at `packed` to bytes.
static inline void UnpackStream(const Unpacker& unpacker, const uint8_t* packed, int64_t packed_bytes, int64_t count,
                                uint8_t* codes) {
  for (int64_t i = 0; i < count; i += 64) {
    _mm512_mask_storeu_epi8(codes + i, LowMask64(count - i), unpacker.Load(packed, packed_bytes));
    packed += unpacker.BlockBytes();
    packed_bytes -= unpacker.BlockBytes();
  }
}

}  // namespace prism::cpu::avx512
PRISM_TARGET_END
#endif
