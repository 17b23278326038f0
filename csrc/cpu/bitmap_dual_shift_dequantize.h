// bitmap_dual_shift_dequantize: (q - z) * s * c, or (level[q] * s) * c, in float32, rounded once; a pruned weight is +0.
//
// The codes of a panel are expanded to a byte per weight, a pruned one being the code of 0: a block of 8-bit codes, which
// the kernel of dual_shift_dequantize decodes while it is still in the cache.
#pragma once
#include "bitmap.h"
#include "dual_shift_dequantize.h"

namespace prism::cpu {

struct BitmapDualShiftDequantizeArgs {
  const uint8_t* bitmap = nullptr;         // [panels, ceil(k / 4), 8]
  const uint8_t* codes = nullptr;          // [size]
  const int64_t* panel_offsets = nullptr;  // [panels + 1], rising from 0 or more to at most size
  int64_t size = 0;
  DualShiftDequantizeArgs grid;  // everything but its codes; of `bits` bits, as the zero points are packed
};

using BitmapDualShiftDequantizeFn = void (*)(const BitmapDualShiftDequantizeArgs& args, int64_t begin_panel,
                                             int64_t end_panel);
namespace generic {
void BitmapDualShiftDequantize(const BitmapDualShiftDequantizeArgs&, int64_t, int64_t);
}
namespace avx2 {
void BitmapDualShiftDequantize(const BitmapDualShiftDequantizeArgs&, int64_t, int64_t);
}
namespace avx512 {
void BitmapDualShiftDequantize(const BitmapDualShiftDequantizeArgs&, int64_t, int64_t);
}
BitmapDualShiftDequantizeFn PickBitmapDualShiftDequantize();

// Bytes that kernels read at once of the codes of a quad: 64 codes, and 8 more of a shifted word.
inline constexpr int64_t kQuadCodeBytes = 72;
using QuadStream = GuardedStream<kQuadCodeBytes>;

// Expands `quads` quads: out[64 * q + i] is the code of bit i of mask q, or fill[i] where that bit is 0. `position` moves
// on in the stream by what the quads take.
using ExpandQuadsFn = void (*)(const uint8_t* masks, int64_t quads, const uint8_t* fill, QuadStream& stream,
                               int64_t& position, uint8_t* out);

// The function template's instance for a code width.
#define PRISM_BY_BITS(bits, function)                                                            \
  ((bits) == 2 ? function<2> : (bits) == 3 ? function<3> : (bits) == 4 ? function<4> : (bits) == 5 \
       ? function<5> : (bits) == 6 ? function<6> : function<8>)

// The panels of every instruction set: `expand` is for args.grid.bits.
void DecodeBitmapPanels(const BitmapDualShiftDequantizeArgs& args, int64_t begin_panel, int64_t end_panel,
                        ExpandQuadsFn expand, DualShiftDequantizeFn decode);

}  // namespace prism::cpu
