// A 64-column block at a time: test for the mask word, vpcompress for the survivors. Compressing into a register and
// storing under a length mask is cheaper than vpcompress to memory, and never writes past the block's survivors.
#include "bitmap.h"
#include "bitmap_pack.h"
#include "isa.h"

#if PRISM_X86
#include <immintrin.h>

#include <algorithm>

PRISM_TARGET_BEGIN(PRISM_TARGET_AVX512)
namespace prism::cpu::avx512 {
namespace {

// The low `count` bits, count in [0, 64].
inline uint64_t LowBits(int64_t count) { return count >= 64 ? ~uint64_t{0} : (uint64_t{1} << count) - 1; }

void FromMask(const bool* mask, int64_t rows, int64_t k, uint8_t* bitmap) {
  for (int64_t row = 0; row < rows; ++row, mask += k) {
    for (int64_t j = 0; j < k; j += kBlock, bitmap += 8) {
      const __m512i bytes = _mm512_maskz_loadu_epi8(LowBits(k - j), mask + j);
      const uint64_t kept = _mm512_test_epi8_mask(bytes, bytes);
      std::memcpy(bitmap, &kept, 8);
    }
  }
}

uint64_t NonZero16(const uint16_t* weight, int64_t available) {
  const __m512i magnitude = _mm512_set1_epi16(0x7fff);
  const uint64_t low = _mm512_test_epi16_mask(_mm512_maskz_loadu_epi16(LowBits(std::min<int64_t>(available, 32)), weight), magnitude);
  if (available <= 32) return low;
  const __mmask32 tail = static_cast<__mmask32>(LowBits(std::min<int64_t>(available - 32, 32)));
  return low | static_cast<uint64_t>(_mm512_test_epi16_mask(_mm512_maskz_loadu_epi16(tail, weight + 32), magnitude)) << 32;
}

uint64_t NonZero32(const uint32_t* weight, int64_t available) {
  const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
  uint64_t kept = 0;
  for (int64_t i = 0; i < std::min<int64_t>(available, kBlock); i += 16) {
    const __mmask16 valid = static_cast<__mmask16>(LowBits(std::min<int64_t>(available - i, 16)));
    kept |= static_cast<uint64_t>(_mm512_test_epi32_mask(_mm512_maskz_loadu_epi32(valid, weight + i), magnitude)) << i;
  }
  return kept;
}

void FromWeight(const void* weight, int64_t element_bytes, int64_t rows, int64_t k, uint8_t* bitmap) {
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t j = 0; j < k; j += kBlock, bitmap += 8) {
      const int64_t at = row * k + j;
      const uint64_t kept = element_bytes == 2 ? NonZero16(static_cast<const uint16_t*>(weight) + at, k - j)
                                               : NonZero32(static_cast<const uint32_t*>(weight) + at, k - j);
      std::memcpy(bitmap, &kept, 8);
    }
  }
}

uint16_t* Compress16(const uint16_t* weight, uint64_t mask, uint16_t* values) {
  for (int half = 0; half < 2; ++half) {
    const __mmask32 kept = static_cast<__mmask32>(mask >> (32 * half));
    if (kept == 0) continue;
    const int count = _mm_popcnt_u32(kept);
    const __m512i packed = _mm512_maskz_compress_epi16(kept, _mm512_maskz_loadu_epi16(kept, weight + 32 * half));
    _mm512_mask_storeu_epi16(values, static_cast<__mmask32>(LowBits(count)), packed);
    values += count;
  }
  return values;
}

uint32_t* Compress32(const uint32_t* weight, uint64_t mask, uint32_t* values) {
  for (int quarter = 0; quarter < 4; ++quarter) {
    const __mmask16 kept = static_cast<__mmask16>(mask >> (16 * quarter));
    if (kept == 0) continue;
    const int count = _mm_popcnt_u32(kept);
    const __m512i packed = _mm512_maskz_compress_epi32(kept, _mm512_maskz_loadu_epi32(kept, weight + 16 * quarter));
    _mm512_mask_storeu_epi32(values, static_cast<__mmask16>(LowBits(count)), packed);
    values += count;
  }
  return values;
}

void Compress(const void* weight, int64_t element_bytes, const uint8_t* bitmap, int64_t rows, int64_t k, void* values) {
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t j = 0; j < k; j += kBlock, bitmap += 8) {
      const int64_t at = row * k + j;
      if (element_bytes == 2) {
        values = Compress16(static_cast<const uint16_t*>(weight) + at, LoadMask(bitmap), static_cast<uint16_t*>(values));
      } else {
        values = Compress32(static_cast<const uint32_t*>(weight) + at, LoadMask(bitmap), static_cast<uint32_t*>(values));
      }
    }
  }
}

}  // namespace

const BitmapPackKernel kBitmapPack = {FromMask, FromWeight, Compress};

}  // namespace prism::cpu::avx512
PRISM_TARGET_END
#endif
