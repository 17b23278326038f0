// dual_shift_linear: a linear over packed planes of codes. The formula and the ways of computing it: quad_linear.h.
#pragma once
#include "quad_linear.h"

namespace prism::cpu {

// Codes u8 [panels, blocks of 32 columns, bits, 64]: in every block one bit plane after the other (common/panels.h).
struct PlaneCodes {
  const uint8_t* codes;
  int bits;
  int64_t blocks;

  const uint8_t* Panel(int64_t panel) const { return codes + panel * blocks * bits * kQuadBytes; }
};

using DualShiftLinearKernel = QuadLinearKernel<PlaneCodes>;

namespace generic {
extern const DualShiftLinearKernel kDualShiftLinear, kDualShiftLinearInt8, kDualShiftLinearAnyGroup;
}
namespace avx2 {
extern const DualShiftLinearKernel kDualShiftLinear, kDualShiftLinearInt16, kDualShiftLinearInt8;
}
namespace avx512 {
extern const DualShiftLinearKernel kDualShiftLinear, kDualShiftLinearInt16, kDualShiftLinearInt8;
}
namespace avx512_bf16 {
extern const DualShiftLinearKernel kDualShiftLinear;
}

// How many tokens take activations of 16 bits. With AVX-512 4-bit codes have a look-up of bfloat16, with AVX2 more sums do
// not fit the registers, nor products of 8-bit codes 16 bits.
inline int64_t DualShiftLinearInt16Tokens(int bits) {
  if (ActiveIsa() >= Isa::kAvx512) return bits == 4 ? 2 : 16;
  return ActiveIsa() == Isa::kAvx2 && bits < 8 ? 2 : 0;
}

// Groups of whole blocks of codes have kernels for each instruction set; any other group size takes one generic kernel.
const DualShiftLinearKernel& PickDualShiftLinear(Arithmetic arithmetic, int64_t group_size, int64_t k);

}  // namespace prism::cpu
