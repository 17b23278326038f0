// Codes, scales and zero points of a panel in plain C++, sixteen rows at a time in loops that compilers turn into vectors.
#pragma once
#include <cstring>

#include "../common/panels.h"

namespace prism::cpu::generic {

// The codes of quad `quad` of a block of planes: lane r holds row r, byte b its column kQuadOrder[b].
inline void LoadQuad(const uint8_t* block, int bits, int quad, uint32_t* lanes) {
  const PlaneWidths widths = PlaneWidthsOf(bits);
  uint32_t plane[kPanelRows];
  const auto load = [&](int width, const uint8_t* vectors) {
    const int per_vector = 8 / width, right = width * (quad % per_vector);
    const uint32_t mask = 0x01010101u * ((1u << width) - 1);
    std::memcpy(plane, vectors + quad / per_vector * kQuadBytes, sizeof plane);
    for (int r = 0; r < kPanelRows; ++r) plane[r] = (plane[r] >> right) & mask;
  };
  load(widths.low, block);
  std::memcpy(lanes, plane, sizeof plane);
  if (widths.high == 0) return;
  load(widths.high, block + widths.low * kQuadBytes);
  for (int r = 0; r < kPanelRows; ++r) lanes[r] |= plane[r] << widths.low;
}

// The scales bfloat16 [16] of one group of a panel.
inline void LoadScales(const uint16_t* packed, float* scale) {
  for (int r = 0; r < kPanelRows; ++r) scale[r] = BFloat16ToFloat(packed[r]);
}

// The zero points of one group of a panel: ZeroBytes(bits) bytes.
inline void LoadZeros(const uint8_t* packed, int bits, float* zero) {
  for (int r = 0; r < kPanelRows; ++r) {
    zero[r] = bits > 4 ? packed[r] : r < 8 ? packed[r] & 15 : packed[r - 8] >> 4;
  }
}

}  // namespace prism::cpu::generic
