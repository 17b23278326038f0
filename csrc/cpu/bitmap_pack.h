// bitmap_pack: one bit per weight and the kept weights, in two passes, because a row's place in the stream is known only
// when all rows before it are counted. Rows are independent in each pass.
#pragma once
#include <cstdint>

namespace prism::cpu {

struct BitmapPackKernel {
  // mask [rows, k] -> bitmap [rows, 8 * ceil(k / 64)], tail bits 0.
  void (*from_mask)(const bool* mask, int64_t rows, int64_t k, uint8_t* bitmap);
  // The mask of weights that differ from 0 (-0 does not, NaN does); weight [rows, k] of 2 or 4 bytes, a float format.
  void (*from_weight)(const void* weight, int64_t element_bytes, int64_t rows, int64_t k, uint8_t* bitmap);
  // The kept elements of weight [rows, k], row-major, into `values` (as many elements as the bitmap has bits).
  void (*compress)(const void* weight, int64_t element_bytes, const uint8_t* bitmap, int64_t rows, int64_t k, void* values);
};

namespace generic { extern const BitmapPackKernel kBitmapPack; }
namespace avx2 { extern const BitmapPackKernel kBitmapPack; }
namespace avx512 { extern const BitmapPackKernel kBitmapPack; }

const BitmapPackKernel* PickBitmapPack();

// Bits set in `bytes` bytes (a multiple of 8).
int64_t CountBits(const uint8_t* bitmap, int64_t bytes);

}  // namespace prism::cpu
