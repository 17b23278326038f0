// bitmap_dual_shift_pack: a mask per quad of a panel, and the survivors' codes, per quad a little-endian bit stream in the
// order of the mask's bits, padded with 0 to a whole byte. Runs once per weight.
#pragma once
#include "bitmap.h"

namespace prism::cpu {

struct BitmapDualShiftPackArgs {
  const uint8_t* codes = nullptr;  // [n, k], one code per byte, of which the low `bits` bits are stored
  const bool* mask = nullptr;      // [n, k], true = kept
  int64_t n = 0, k = 0;
  int bits = 0;
  uint8_t* bitmap = nullptr;         // [panels, ceil(k / 4), 8]
  int64_t* panel_offsets = nullptr;  // [panels + 1]
  uint8_t* packed = nullptr;         // [bytes]
};

// `mark` writes the bitmap and, at panel_offsets[panel + 1], the bytes of each panel's codes; `gather` writes the codes
// once the offsets have been summed up.
struct BitmapDualShiftPackKernel {
  void (*mark)(const BitmapDualShiftPackArgs& args, int64_t begin_panel, int64_t end_panel);
  void (*gather)(const BitmapDualShiftPackArgs& args, int64_t begin_panel, int64_t end_panel);
};
const BitmapDualShiftPackKernel* PickBitmapDualShiftPack();

}  // namespace prism::cpu
