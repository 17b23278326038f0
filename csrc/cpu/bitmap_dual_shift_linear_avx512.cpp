// Sixteen rows at a time: float32 products of converted codes, and integer products (VNNI) of 8 or 16-bit activations.
#include "bitmap_dual_shift_linear.h"

#if PRISM_X86
#include "bitmap_quads_avx512.h"

PRISM_TARGET_BEGIN(PRISM_TARGET_AVX512)
namespace prism::cpu::avx512 {
namespace {

#include "quad_linear_arrange.inc"
#include "quad_linear_tile.inc"
#include "bitmap_dual_shift_linear_run.inc"

using Convert = Float32Convert;

void Run(const QuadLinearArgs& a, const BitmapCodes& weight, int64_t begin, int64_t end) {
  if (a.grid.codebook == Codebook::kNf4) return RunBits<Float32Levels, Float32Levels, 4>(a, weight, begin, end);
  if (a.grid.codebook == Codebook::kNf3) return RunBits<Float32Levels, Float32Levels, 3>(a, weight, begin, end);
  RunWidths<Convert, Convert, Convert, Convert, Float32Wide, Float32Wide>(a, weight, begin, end);
}

void RunInt8(const QuadLinearArgs& a, const BitmapCodes& weight, int64_t begin, int64_t end) {
  static_assert(BitmapQuads<4>::kClean);
  if (weight.bits == 4) return RunBits<Int8Clean, Int8Centered, 4, FewWidths4>(a, weight, begin, end);
  RunWidths<Int8, Int8Centered, Int8, Int8Centered, Int8, Int8Wide>(a, weight, begin, end);
}

template <int kBits>
void RunInt16Bits(const QuadLinearArgs& a, const BitmapCodes& weight, int64_t begin, int64_t end) {
  using Source = BitmapQuads<kBits>;
  typename Source::Guard guard(weight.codes, weight.size);
  const Int16<!Source::kClean> arithmetic(a.grid);
  RunFew<Source, Int16Widths>(a, arithmetic, weight.quads, begin, end,
                              [&](int64_t panel, int) { return Source(weight, a.grid, panel, &guard); });
}

void RunInt16(const QuadLinearArgs& a, const BitmapCodes& weight, int64_t begin, int64_t end) {
  CodeBits::For(weight.bits, [&](auto bits) { RunInt16Bits<bits>(a, weight, begin, end); });
}

}  // namespace

const BitmapDualShiftLinearKernel kBitmapDualShiftLinear = {Arrange<Arithmetic::kFloat32>, Run, 4, kWidths, kWidths};
const BitmapDualShiftLinearKernel kBitmapDualShiftLinearInt8 = {
    Arrange<Arithmetic::kInt8>, RunInt8, 1, kWidths4, kWidths};
const BitmapDualShiftLinearKernel kBitmapDualShiftLinearInt16 = {Arrange<Arithmetic::kInt16>, RunInt16, 2, kInt16Widths,
                                                                 kInt16Widths};

}  // namespace prism::cpu::avx512
PRISM_TARGET_END
#endif
