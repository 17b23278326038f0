// bitmap_linear: a linear over the values that a bitmap keeps, by the loops of quad_linear.h: a step is a pair of columns,
// the whole row is one group of scale 1.
#pragma once
#include "bitmap.h"
#include "quad_linear.h"

namespace prism::cpu {

// One 32-bit mask per pair of columns.
struct BitmapValues {
  const uint8_t* bitmap;         // [panels, pairs, 4]
  const uint8_t* values;         // [size] of dtype
  const int64_t* panel_offsets;  // [panels + 1] in elements, rising, within [0, size]
  int64_t size, pairs;
  DType dtype;

  const uint8_t* PanelBitmap(int64_t panel) const { return bitmap + panel * pairs * kPairMaskBytes; }
};

using BitmapLinearKernel = QuadLinearKernel<BitmapValues>;

namespace generic {
extern const BitmapLinearKernel kBitmapLinear;
}
namespace avx2 {
extern const BitmapLinearKernel kBitmapLinear;
}
namespace avx512 {
extern const BitmapLinearKernel kBitmapLinear;
}
namespace avx512_bf16 {
extern const BitmapLinearKernel kBitmapLinear;
}

// kBFloat16 for bfloat16 activations and values where the instruction set multiplies them.
Arithmetic BitmapArithmetic(DType x_dtype, DType values_dtype);
const BitmapLinearKernel& PickBitmapLinear(Arithmetic arithmetic);

}  // namespace prism::cpu
