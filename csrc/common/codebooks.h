// Code widths and the levels of the non-uniform codebooks; the numbers of prism_kernels/reference/codebooks.py.
#pragma once
#include <cstdint>

#include "host_device.h"

namespace prism {

// kUniform codes are steps from a zero point; the others index a table of levels.
enum class Codebook { kUniform, kNf4, kNf3 };

inline constexpr float kNf4Levels[16] = {
    -1.0f, -0.6961928009986877f, -0.5250730514526367f, -0.39491748809814453f, -0.28444138169288635f,
    -0.18477343022823334f, -0.09105003625154495f, 0.0f, 0.07958029955625534f, 0.16093020141124725f,
    0.24611230194568634f, 0.33791524171829224f, 0.44070982933044434f, 0.5626170039176941f, 0.7229568362236023f, 1.0f};
inline constexpr float kNf3Levels[8] = {-1.0f, -0.5350227355957031f, -0.24693143367767334f, 0.0f,
                                        0.1833374798297882f, 0.38199394941329956f, 0.6229857206344604f, 1.0f};

// nullptr for kUniform.
constexpr const float* CodebookLevels(Codebook codebook) {
  return codebook == Codebook::kNf4 ? kNf4Levels : codebook == Codebook::kNf3 ? kNf3Levels : nullptr;
}

PRISM_HOST_DEVICE constexpr int CodebookSize(Codebook codebook) {
  return codebook == Codebook::kNf4 ? 16 : codebook == Codebook::kNf3 ? 8 : 0;
}

PRISM_HOST_DEVICE constexpr bool IsCodeWidth(int64_t bits) { return (bits >= 2 && bits <= 6) || bits == 8; }

// Bytes of `count` packed codes.
PRISM_HOST_DEVICE constexpr int64_t PackedBytes(int64_t count, int64_t bits) { return (count * bits + 7) / 8; }

// Code `index` of a little-endian bit stream; reads only bytes that hold bits of it.
PRISM_HOST_DEVICE inline uint32_t CodeAt(const uint8_t* stream, int64_t index, int bits) {
  const int64_t bit = index * bits;
  const int shift = static_cast<int>(bit & 7);
  uint32_t value = stream[bit >> 3] >> shift;
  if (shift + bits > 8) value |= static_cast<uint32_t>(stream[(bit >> 3) + 1]) << (8 - shift);
  return value & ((1u << bits) - 1u);
}

}  // namespace prism
