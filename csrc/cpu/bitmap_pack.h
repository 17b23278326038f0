// bitmap_pack: a mask per pair of columns of a panel, and the kept weights in the order of its bits. Runs once per weight.
#pragma once
#include "bitmap.h"

namespace prism::cpu {

struct BitmapPackArgs {
  const void* weight = nullptr;  // [n, k] of element_bytes (2 or 4), float32, float16 or bfloat16
  const bool* mask = nullptr;    // [n, k], true = kept; null keeps what differs from 0
  int64_t n = 0, k = 0, element_bytes = 0;
  uint8_t* bitmap = nullptr;         // [panels, ceil(k / 2), 4]
  int64_t* panel_offsets = nullptr;  // [panels + 1]
  void* values = nullptr;            // [kept]
};

// `mark` writes the bitmap and, at panel_offsets[panel + 1], the survivors of each panel; `gather` writes the values once
// the offsets have been summed up.
struct BitmapPackKernel {
  void (*mark)(const BitmapPackArgs& args, int64_t begin_panel, int64_t end_panel);
  void (*gather)(const BitmapPackArgs& args, int64_t begin_panel, int64_t end_panel);
};
const BitmapPackKernel* PickBitmapPack();

}  // namespace prism::cpu
