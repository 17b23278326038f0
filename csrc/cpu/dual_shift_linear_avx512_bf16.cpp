// Sixteen rows at a time, two columns per dot product.
#include "dual_shift_linear.h"

#if PRISM_X86
#include "quad_avx512_bf16.h"

PRISM_TARGET_BEGIN(PRISM_TARGET_AVX512_BF16)
namespace prism::cpu::avx512_bf16 {
namespace {

PRISM_DEFINE_UNROLL
#include "quad_linear_arrange.inc"
#include "quad_linear_tile.inc"
#include "quad_planes.inc"
#include "dual_shift_linear_run.inc"

using Table = BFloat16Table;
using SignedTable = BFloat16SignedTable;
using Convert = BFloat16Convert;

}  // namespace

// Codes of 6 bits do not fit the table of few tokens, those of 5 do: both take the one conversion.
const DualShiftLinearKernel kDualShiftLinear = {
    Arrange<Arithmetic::kBFloat16>, RunWidths<Table, SignedTable, Convert, Convert, Convert, Convert, FewWidths4>, 2, kWidths4, kWidths};

}  // namespace prism::cpu::avx512_bf16
PRISM_TARGET_END
#endif
