// Sixteen rows at a time: float32 products by table look-up or conversion, and integer products (VNNI).
#include "dual_shift_linear.h"

#if PRISM_X86
#include "quad_avx512.h"

PRISM_TARGET_BEGIN(PRISM_TARGET_AVX512)
namespace prism::cpu::avx512 {
namespace {

PRISM_DEFINE_UNROLL
#include "quad_linear_arrange.inc"
#include "quad_linear_tile.inc"
#include "quad_planes.inc"
#include "dual_shift_linear_run.inc"

using Table = Float32Table;
using Convert = Float32Convert;

}  // namespace

const DualShiftLinearKernel kDualShiftLinear = {
    Arrange<Arithmetic::kFloat32>, RunWidths<Table, Table, Convert, Convert, Convert, Convert>, 4, kTokenWidths};
const DualShiftLinearKernel kDualShiftLinearInt8 = {
    Arrange<Arithmetic::kInt8>, RunWidths<Int8, Int8Signed, Int8, Int8Signed, Int8, Int8Wide>, 1, kTokenWidths, true};

}  // namespace prism::cpu::avx512
PRISM_TARGET_END
#endif
