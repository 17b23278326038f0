// Both halves of a panel at a time: float32 products of converted codes, and integer products of 8 or 16-bit activations.
#include "dual_shift_linear.h"

#if PRISM_X86
#include "quad_avx2.h"

PRISM_TARGET_BEGIN(PRISM_TARGET_AVX2)
namespace prism::cpu::avx2 {
namespace {

#include "quad_linear_arrange.inc"
#include "quad_linear_tile.inc"
#include "quad_planes.inc"
#include "dual_shift_linear_run.inc"

using Convert = Float32Convert;

void Run(const QuadLinearArgs& a, const PlaneCodes& weight, int64_t begin, int64_t end) {
  if (a.grid.codebook == Codebook::kNf4) return RunBits<Float32Levels, Float32Levels, 4>(a, weight, begin, end);
  if (a.grid.codebook == Codebook::kNf3) return RunBits<Float32Levels, Float32Levels, 3>(a, weight, begin, end);
  RunWidths<Convert, Convert, Convert, Convert, Float32Wide, Float32Wide>(a, weight, begin, end);
}

template <int kBits>
void RunInt16Bits(const QuadLinearArgs& a, const PlaneCodes& weight, int64_t begin, int64_t end) {
  RunFew<Planes<kBits>, Int16Widths>(a, Int16(a.grid), weight.blocks * kBlockQuads, begin, end,
                                     [&](int64_t panel, int) { return Planes<kBits>(weight, panel); });
}

// Up to 6 bits (DualShiftLinearInt16Tokens).
void RunInt16(const QuadLinearArgs& a, const PlaneCodes& weight, int64_t begin, int64_t end) {
  CodeBits::For(weight.bits, [&](auto bits) {
    if constexpr (bits <= 6) RunInt16Bits<bits>(a, weight, begin, end);
  });
}

}  // namespace

const DualShiftLinearKernel kDualShiftLinear = {Arrange<Arithmetic::kFloat32>, Run, 4, kWidths, kWidths};
const DualShiftLinearKernel kDualShiftLinearInt16 = {Arrange<Arithmetic::kInt16>, RunInt16, 2, kInt16Widths, kInt16Widths};
const DualShiftLinearKernel kDualShiftLinearInt8 = {
    Arrange<Arithmetic::kInt8>, RunWidths<Int8, Int8, Int8, Int8, Int8Wide, Int8Wide>, 1, kWidths, kWidths};

}  // namespace prism::cpu::avx2
PRISM_TARGET_END
#endif
