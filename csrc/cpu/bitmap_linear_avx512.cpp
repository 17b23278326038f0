// Sixteen rows at a time, float32 products.
#include "bitmap_linear.h"

#if PRISM_X86
#include "bitmap_pairs_avx512.h"

PRISM_TARGET_BEGIN(PRISM_TARGET_AVX512)
namespace prism::cpu::avx512 {
namespace {

template <DType kDType>
using BitmapPairs = BitmapSteps<kDType == DType::kFloat32 ? 4 : 2, FloatPair<kDType>>;

#include "quad_linear_arrange.inc"
#include "quad_linear_tile.inc"
#include "bitmap_linear_run.inc"

}  // namespace

const BitmapLinearKernel kBitmapLinear = {Arrange<Arithmetic::kFloat32>, RunDTypes<Float32Values>, 4, kWidths, kWidths};

}  // namespace prism::cpu::avx512
PRISM_TARGET_END
#endif
