// The bitmap layout: bit j % 64 of the little-endian 64-bit word j / 64 of a row is column j; rows are whole words.
#pragma once
#include <cstdint>
#include <cstring>

#include "../common/dtype.h"

namespace prism::cpu {

constexpr int64_t kBlock = 64;  // columns per bitmap word

inline int64_t NumBlocks(int64_t k) { return CeilDiv(k, kBlock); }

// Built from bytes, so that a big-endian machine reads the same mask; compilers make one load of it.
inline uint64_t LoadMask(const uint8_t* word) {
  uint64_t mask = 0;
  for (int i = 0; i < 8; ++i) mask |= static_cast<uint64_t>(word[i]) << (8 * i);
  return mask;
}

}  // namespace prism::cpu
