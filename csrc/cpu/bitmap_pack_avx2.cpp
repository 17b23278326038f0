// 32 mask bytes at a time by movemask. Compression has no AVX2 instruction: the generic loop over set bits serves it.
#include "bitmap.h"
#include "bitmap_pack.h"
#include "isa.h"

#if PRISM_X86
#include <immintrin.h>

PRISM_TARGET_BEGIN(PRISM_TARGET_AVX2)
namespace prism::cpu::avx2 {
namespace {

void FromMask(const bool* mask, int64_t rows, int64_t k, uint8_t* bitmap) {
  const int64_t width = 8 * NumBlocks(k), whole = k - k % 32;
  std::memset(bitmap, 0, static_cast<size_t>(rows * width));
  for (int64_t row = 0; row < rows; ++row, mask += k, bitmap += width) {
    for (int64_t j = 0; j < whole; j += 32) {
      const __m256i bytes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(mask + j));
      const uint32_t pruned = _mm256_movemask_epi8(_mm256_cmpeq_epi8(bytes, _mm256_setzero_si256()));
      const uint32_t kept = ~pruned;
      std::memcpy(bitmap + j / 8, &kept, 4);
    }
    for (int64_t j = whole; j < k; ++j) bitmap[j / 8] |= static_cast<uint8_t>(mask[j] << (j % 8));
  }
}

void FromWeight(const void* weight, int64_t element_bytes, int64_t rows, int64_t k, uint8_t* bitmap) {
  generic::kBitmapPack.from_weight(weight, element_bytes, rows, k, bitmap);
}

void Compress(const void* weight, int64_t element_bytes, const uint8_t* bitmap, int64_t rows, int64_t k, void* values) {
  generic::kBitmapPack.compress(weight, element_bytes, bitmap, rows, k, values);
}

}  // namespace

const BitmapPackKernel kBitmapPack = {FromMask, FromWeight, Compress};

}  // namespace prism::cpu::avx2
PRISM_TARGET_END
#endif
