// Sixteen rows at a time: a pair of columns is one dot product.
#include "bitmap_linear.h"

#if PRISM_X86
#include "bitmap_pairs_avx512.h"
#include "quad_avx512_bf16.h"

PRISM_TARGET_BEGIN(PRISM_TARGET_AVX512_BF16)
namespace prism::cpu::avx512_bf16 {
namespace {

template <DType>
using BitmapPairs = BitmapSteps<2, RawPair>;

struct BFloat16Values : BFloat16 {
  static constexpr int kParts = 1;
  static PRISM_INLINE Ints Prepare(Ints zero) { return zero; }
  template <int kPart>
  PRISM_INLINE Ints Decode(Ints pair, Ints) const { return pair; }
};

PRISM_DEFINE_UNROLL
#include "quad_linear_arrange.inc"
#include "quad_linear_tile.inc"
#include "bitmap_linear_run.inc"

}  // namespace

const BitmapLinearKernel kBitmapLinear = {Arrange<Arithmetic::kBFloat16>,
                                          RunValues<BFloat16Values, DType::kBFloat16, FewWidths4>, 2, kWidths4, kWidths4};

}  // namespace prism::cpu::avx512_bf16
PRISM_TARGET_END
#endif
