// The uniform grid of a quantization group, value by value: the arithmetic of prism_kernels/reference/grid.py.
#pragma once
#include <cmath>
#include <cstdint>

#include "dtype.h"

namespace prism {

struct Grid {
  uint16_t scale;  // bfloat16, finite and at least its smallest normal number
  uint8_t zero;    // 0 <= zero <= maxq, so that 0 decodes to exactly 0
};

// `low` <= 0 <= `high` span the group's values; maxq = 2^bits - 1. Rounds half to even, as the machine does by default.
PRISM_HOST_DEVICE inline Grid FindGrid(float low, float high, float maxq) {
  constexpr float kLargest = 0x1.fep127f, kSmallestNormal = 0x1p-126f;  // of bfloat16
  const float step = (high - low) / maxq;
  uint16_t scale = FloatToBFloat16(step < kLargest ? step : kLargest);
  if (!(BFloat16ToFloat(scale) >= kSmallestNormal)) scale = FloatToBFloat16(1.0f);  // empty, all zero or subnormal
  const float zero = std::nearbyint(-low / BFloat16ToFloat(scale));
  return {scale, static_cast<uint8_t>(zero < maxq ? zero : maxq)};
}

PRISM_HOST_DEVICE inline uint8_t RoundToGrid(float value, float scale, float zero, float maxq) {
  const float code = std::nearbyint(value / scale) + zero;
  if (!(code > 0.0f)) return 0;
  return static_cast<uint8_t>(code < maxq ? code : maxq);
}

}  // namespace prism
