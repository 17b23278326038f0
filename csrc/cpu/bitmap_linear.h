// y = x @ weight^T over a bitmap weight; sums in float32.
// Activations as FloatActivations or BFloat16Activations gives them (activations.h). Rows [row_begin, row_end) of the
// weight; a row's sums do not depend on that range.
#pragma once
#include "bitmap_values.h"

namespace prism::cpu {

template <class T>
using BitmapLinearFn = void (*)(const BitmapValues& w, const T* x, int64_t m, int64_t row_begin, int64_t row_end,
                                float* sums,  // [m, n], written at the columns of the range
                                int64_t n);
namespace generic { void BitmapLinear(const BitmapValues&, const float*, int64_t, int64_t, int64_t, float*, int64_t); }
namespace avx2 { void BitmapLinear(const BitmapValues&, const float*, int64_t, int64_t, int64_t, float*, int64_t); }
namespace avx512 { void BitmapLinear(const BitmapValues&, const float*, int64_t, int64_t, int64_t, float*, int64_t); }
namespace avx512_bf16 {
void BitmapLinear(const BitmapValues&, const uint16_t*, int64_t, int64_t, int64_t, float*, int64_t);
}
BitmapLinearFn<float> PickBitmapLinear();
// For bf16 activations and bf16 values; null where the instruction set or a dtype has no kernel over bf16 pairs.
BitmapLinearFn<uint16_t> PickBitmapLinearBFloat16(const BitmapValues& w, DType x_dtype);

}  // namespace prism::cpu
