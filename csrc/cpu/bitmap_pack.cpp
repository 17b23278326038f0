#include "bitmap_pack.h"

#include <bit>
#include <cstring>

#include "bitmap.h"
#include "isa.h"

namespace prism::cpu {
namespace generic {
namespace {

template <class IsKept>
void FromPredicate(int64_t rows, int64_t k, uint8_t* bitmap, const IsKept& is_kept) {
  const int64_t width = 8 * NumBlocks(k);
  std::memset(bitmap, 0, static_cast<size_t>(rows * width));
  for (int64_t row = 0; row < rows; ++row, bitmap += width) {
    for (int64_t j = 0; j < k; ++j) bitmap[j / 8] |= static_cast<uint8_t>(is_kept(row * k + j) << (j % 8));
  }
}

void FromMask(const bool* mask, int64_t rows, int64_t k, uint8_t* bitmap) {
  FromPredicate(rows, k, bitmap, [&](int64_t i) { return mask[i]; });
}

void FromWeight(const void* weight, int64_t element_bytes, int64_t rows, int64_t k, uint8_t* bitmap) {
  if (element_bytes == 2) {
    const auto* words = static_cast<const uint16_t*>(weight);
    FromPredicate(rows, k, bitmap, [&](int64_t i) { return (words[i] & 0x7fffu) != 0; });
  } else {
    const auto* words = static_cast<const uint32_t*>(weight);
    FromPredicate(rows, k, bitmap, [&](int64_t i) { return (words[i] & 0x7fffffffu) != 0; });
  }
}

template <class Element>
void CompressElements(const Element* weight, const uint8_t* bitmap, int64_t rows, int64_t k, Element* values) {
  const int64_t blocks = NumBlocks(k);
  for (int64_t row = 0; row < rows; ++row, weight += k) {
    for (int64_t block = 0; block < blocks; ++block, bitmap += 8) {
      for (uint64_t mask = LoadMask(bitmap); mask != 0; mask &= mask - 1) {
        *values++ = weight[block * kBlock + std::countr_zero(mask)];
      }
    }
  }
}

void Compress(const void* weight, int64_t element_bytes, const uint8_t* bitmap, int64_t rows, int64_t k, void* values) {
  if (element_bytes == 2) {
    CompressElements(static_cast<const uint16_t*>(weight), bitmap, rows, k, static_cast<uint16_t*>(values));
  } else {
    CompressElements(static_cast<const uint32_t*>(weight), bitmap, rows, k, static_cast<uint32_t*>(values));
  }
}

}  // namespace

const BitmapPackKernel kBitmapPack = {FromMask, FromWeight, Compress};

}  // namespace generic

const BitmapPackKernel* PickBitmapPack() {
#if PRISM_X86
  return Pick<const BitmapPackKernel*>("bitmap_pack", {&generic::kBitmapPack, &avx2::kBitmapPack, &avx512::kBitmapPack, nullptr});
#else
  return Pick<const BitmapPackKernel*>("bitmap_pack", {&generic::kBitmapPack});
#endif
}

int64_t CountBits(const uint8_t* bitmap, int64_t bytes) {
  int64_t count = 0;
  for (int64_t i = 0; i < bytes; i += 8) count += std::popcount(LoadMask(bitmap + i));
  return count;
}

}  // namespace prism::cpu
