// A bitmap weight with dual-shift codes, as raw pointers, and its scalar decoder. Per row and 64-column block the
// survivors' codes are a little-endian bit stream padded to a whole byte; blocks and rows follow one another. A decoded
// weight is (q - z) * scale, or level[q] * scale, times the scale of its column.
#pragma once
#include <algorithm>
#include <bit>
#include <cstdint>
#include <vector>

#include "../common/codebooks.h"
#include "bitmap.h"
#include "row_streams.h"

namespace prism::cpu {

struct BitmapDualShift {
  const uint8_t* bitmap;       // [n, 8 * NumBlocks(k)]
  const uint8_t* codes;        // [num_code_bytes]
  const int32_t* row_offsets;  // [n + 1], rising, within [0, num_code_bytes]
  const uint16_t* scale;       // bf16 [n, num_groups]
  const uint8_t* zero;         // [n, PackedBytes(num_groups, bits)], packed; unused with levels
  const float* levels;         // [2^bits] of nf4 and nf3, null for uniform codes
  int64_t num_code_bytes, k, group_size, num_groups;
  int bits, zero_level;  // zero_level: the code whose level is 0

  int64_t RowBytes() const { return NumBlocks(k) * 8 * bits; }  // of codes at most
  RowStreams Streams(int num_slots) const { return RowStreams(codes, num_code_bytes, RowBytes(), num_slots); }
  bool GroupsAreBlocks() const { return group_size % kBlock == 0 || num_groups <= 1; }  // no block holds two groups
  // Several groups to a block, none in two, and four neighbouring columns always in one.
  bool GroupsArePartsOfBlocks() const { return group_size >= 4 && group_size < kBlock && kBlock % group_size == 0; }
  const uint8_t* RowBitmap(int64_t row) const { return bitmap + row * 8 * NumBlocks(k); }
  const uint16_t* RowScale(int64_t row) const { return scale + row * num_groups; }
  const uint8_t* RowZero(int64_t row) const { return zero + row * PackedBytes(num_groups, bits); }
};

// The codes of one row as a stream that ends where its buffer ends: a bitmap that promises more codes than there are
// reads zeros, never memory behind the buffer.
class RowCodes {
 public:
  RowCodes(const BitmapDualShift& w, int64_t row)
      : at_(w.codes + w.row_offsets[row]), end_(w.codes + w.num_code_bytes), bits_(w.bits) {}

  // The `count` <= 64 codes of the next block.
  void NextBlock(int count, uint8_t* codes) {
    const int64_t bytes = PackedBytes(count, bits_);
    uint8_t copy[kBlock + 1] = {};
    std::memcpy(copy, at_, static_cast<size_t>(std::min<int64_t>(bytes, end_ - at_)));
    for (int i = 0; i < count; ++i) codes[i] = static_cast<uint8_t>(CodeAt(copy, i, bits_));
    at_ += std::min<int64_t>(bytes, end_ - at_);
  }

 private:
  const uint8_t* at_;
  const uint8_t* end_;
  int bits_;
};

// Decodes one row without the column scale: out [NumBlocks(k) * 64], pruned and padding 0. Products are exact for
// uniform codes.
namespace generic { void DecodeBitmapDualShiftRow(const BitmapDualShift& w, int64_t row, float* out); }

}  // namespace prism::cpu
