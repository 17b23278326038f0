// Decoding of a bitmap weight with dual-shift codes: (q - z) * scale * column_scale, or level[q] * scale *
// column_scale, formed in float32 and rounded once; a pruned weight is +0.
#pragma once
#include "bitmap_dual_shift.h"

namespace prism::cpu {

using BitmapDualShiftDequantizeFn = void (*)(const BitmapDualShift& w, const uint16_t* column_scale,  // bf16 [k]
                                             int64_t row_begin, int64_t row_end, DType dtype,
                                             void* out);  // [n, k], written at the rows of the range
namespace generic {
void BitmapDualShiftDequantize(const BitmapDualShift&, const uint16_t*, int64_t, int64_t, DType, void*);
}
namespace avx2 {
void BitmapDualShiftDequantize(const BitmapDualShift&, const uint16_t*, int64_t, int64_t, DType, void*);
}
namespace avx512 {
void BitmapDualShiftDequantize(const BitmapDualShift&, const uint16_t*, int64_t, int64_t, DType, void*);
}
BitmapDualShiftDequantizeFn PickBitmapDualShiftDequantize();

}  // namespace prism::cpu
