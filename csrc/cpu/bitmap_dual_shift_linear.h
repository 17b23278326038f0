// y = x @ weight^T over a bitmap weight with dual-shift codes; sums in float32.
// Activations come multiplied by the column scale, as FloatActivations or SplitActivations gives them (activations.h).
// Rows [row_begin, row_end) of the weight; a row's sums do not depend on that range.
#pragma once
#include "bitmap_dual_shift.h"

namespace prism::cpu {

template <class T>
using BitmapDualShiftLinearFn = void (*)(const BitmapDualShift& w, const T* x, int64_t m, int64_t row_begin,
                                         int64_t row_end,
                                         float* sums,  // [m, n], written at the columns of the range
                                         int64_t n);
namespace generic {
void BitmapDualShiftLinear(const BitmapDualShift&, const float*, int64_t, int64_t, int64_t, float*, int64_t);
}
namespace avx2 {
void BitmapDualShiftLinear(const BitmapDualShift&, const float*, int64_t, int64_t, int64_t, float*, int64_t);
}
namespace avx512 {
void BitmapDualShiftLinear(const BitmapDualShift&, const float*, int64_t, int64_t, int64_t, float*, int64_t);
}
namespace avx512_bf16 {
void BitmapDualShiftLinear(const BitmapDualShift&, const uint16_t*, int64_t, int64_t, int64_t, float*, int64_t);
}
BitmapDualShiftLinearFn<float> PickBitmapDualShiftLinear();
// Null where the instruction set, the dtype of the activations, the codes or the groups have no kernel over bf16 parts.
BitmapDualShiftLinearFn<uint16_t> PickBitmapDualShiftLinearSplit(const BitmapDualShift& w, DType x_dtype);

}  // namespace prism::cpu
