// bitmap_unpack: the kept values at their places, +0 elsewhere, bit for bit. A panel's values follow its bitmap from its
// offset on; where the bitmap promises more than is stored, the rest is 0.
#pragma once
#include "bitmap.h"

namespace prism::cpu {

struct BitmapUnpackArgs {
  const uint8_t* bitmap = nullptr;         // [panels, ceil(k / 2), 4]
  const void* values = nullptr;            // [size] of element_bytes (2 or 4)
  const int64_t* panel_offsets = nullptr;  // [panels + 1], rising from 0 or more to at most size
  int64_t size = 0, n = 0, k = 0, element_bytes = 0;
  void* weight = nullptr;  // [n, k]
};

using BitmapUnpackFn = void (*)(const BitmapUnpackArgs& args, int64_t begin_panel, int64_t end_panel);
namespace generic { void BitmapUnpack(const BitmapUnpackArgs&, int64_t, int64_t); }
namespace avx2 { void BitmapUnpack(const BitmapUnpackArgs&, int64_t, int64_t); }
namespace avx512 { void BitmapUnpack(const BitmapUnpackArgs&, int64_t, int64_t); }
BitmapUnpackFn PickBitmapUnpack();

// The most bytes that the values of a pair take.
inline constexpr int64_t kPairValueBytes = kPanelRows * kPairColumns * 4;

}  // namespace prism::cpu
