// bitmap_dual_shift_linear: a linear over the codes of the weights that a bitmap keeps; a pruned weight takes the code of
// its zero point (or of level 0). The formula and the ways of computing it: quad_linear.h.
#pragma once
#include "bitmap.h"
#include "quad_linear.h"

namespace prism::cpu {

// One 64-bit mask per quad; the codes that it keeps, `bits` each, are padded to a whole byte.
struct BitmapCodes {
  const uint8_t* bitmap;         // [panels, quads, 8]
  const uint8_t* codes;          // [size]
  const int64_t* panel_offsets;  // [panels + 1], rising, within [0, size]
  int64_t size, quads;
  int bits;

  const uint8_t* PanelBitmap(int64_t panel) const { return bitmap + panel * quads * kQuadMaskBytes; }
};

using BitmapDualShiftLinearKernel = QuadLinearKernel<BitmapCodes>;

namespace generic {
extern const BitmapDualShiftLinearKernel kBitmapDualShiftLinear, kBitmapDualShiftLinearInt8,
    kBitmapDualShiftLinearAnyGroup;
}
namespace avx2 {
extern const BitmapDualShiftLinearKernel kBitmapDualShiftLinear, kBitmapDualShiftLinearInt8;
}
namespace avx512 {
extern const BitmapDualShiftLinearKernel kBitmapDualShiftLinear, kBitmapDualShiftLinearInt16, kBitmapDualShiftLinearInt8;
}
namespace avx512_bf16 {
extern const BitmapDualShiftLinearKernel kBitmapDualShiftLinear;
}

// How many tokens take activations of 16 bits: 4-bit codes have a look-up of bfloat16, and with AVX2 decoding takes most of
// the time.
inline int64_t BitmapDualShiftLinearInt16Tokens(int bits) {
  if (ActiveIsa() < Isa::kAvx512) return 0;
  return bits == 4 ? 8 : 16;
}

// Groups of whole quads have kernels for each instruction set; any other group size takes one generic kernel.
const BitmapDualShiftLinearKernel& PickBitmapDualShiftLinear(Arithmetic arithmetic, int64_t group_size, int64_t k);

}  // namespace prism::cpu
