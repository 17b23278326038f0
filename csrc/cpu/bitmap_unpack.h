// Decoding of a bitmap weight: the kept values at their columns, +0 elsewhere, bit for bit.
#pragma once
#include "bitmap_values.h"

namespace prism::cpu {

using BitmapUnpackFn = void (*)(const BitmapValues& w, int64_t row_begin, int64_t row_end,
                                void* out);  // [n, k] of w.dtype, written at the rows of the range
namespace generic { void BitmapUnpack(const BitmapValues&, int64_t, int64_t, void*); }
namespace avx2 { void BitmapUnpack(const BitmapValues&, int64_t, int64_t, void*); }
namespace avx512 { void BitmapUnpack(const BitmapValues&, int64_t, int64_t, void*); }
BitmapUnpackFn PickBitmapUnpack();

}  // namespace prism::cpu
