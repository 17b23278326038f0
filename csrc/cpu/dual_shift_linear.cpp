#include "dual_shift_linear.h"

#include "quad_generic.h"

namespace prism::cpu {
namespace generic {
namespace {

#include "quad_linear_arrange.inc"
#include "quad_linear_tile.inc"
#include "quad_planes.inc"
#include "dual_shift_linear_run.inc"

using Convert = Float32Convert;

void Run(const QuadLinearArgs& a, const PlaneCodes& weight, int64_t begin, int64_t end) {
  if (a.grid.codebook == Codebook::kNf4) return RunBits<Float32Levels, Float32Levels, 4>(a, weight, begin, end);
  if (a.grid.codebook == Codebook::kNf3) return RunBits<Float32Levels, Float32Levels, 3>(a, weight, begin, end);
  RunWidths<Convert, Convert, Convert, Convert, Convert, Convert>(a, weight, begin, end);
}

template <int kBits>
void RunAnyGroupBits(const QuadLinearArgs& a, const PlaneCodes& weight, int64_t begin, int64_t end) {
  std::vector<uint8_t> bytes(static_cast<size_t>(weight.blocks * kBlockQuads * kQuadBytes));
  std::vector<float> sums(static_cast<size_t>(a.activations.m * kPanelRows));
  for (int64_t panel = begin; panel < end; ++panel) {
    Planes<kBits> source(weight, panel);
    for (uint8_t* block = bytes.data(); block < bytes.data() + bytes.size(); block += kBlockQuads * kQuadBytes) {
      Unroll<kBlockQuads>([&](auto i) PRISM_INLINE {
        const Ints quad = source.template Step<i>(0);
        std::memcpy(block + i * kQuadBytes, &quad, sizeof quad);
      });
      source.template Advance<kBlockQuads>();
    }
    AddAnyGroups(a, bytes.data(), panel, sums);
  }
}

void RunAnyGroup(const QuadLinearArgs& a, const PlaneCodes& weight, int64_t begin, int64_t end) {
  CodeBits::For(weight.bits, [&](auto bits) { RunAnyGroupBits<bits>(a, weight, begin, end); });
}

}  // namespace

const DualShiftLinearKernel kDualShiftLinear = {Arrange<Arithmetic::kFloat32>, Run, 4, kWidths, kWidths};
const DualShiftLinearKernel kDualShiftLinearInt8 = {
    Arrange<Arithmetic::kInt8>, RunWidths<Int8, Int8, Int8, Int8, Int8, Int8>, 1, kWidths, kWidths};
const DualShiftLinearKernel kDualShiftLinearAnyGroup = {ArrangeNatural, RunAnyGroup, 4, kOneToken, kOneToken};

}  // namespace generic

const DualShiftLinearKernel& PickDualShiftLinear(Arithmetic arithmetic, int64_t group_size, int64_t k) {
  using Kernel = const DualShiftLinearKernel*;
  KernelTable<Kernel> table{&generic::kDualShiftLinearAnyGroup};
  if (group_size >= k || group_size % kBlockColumns == 0) {
    const bool int8 = arithmetic == Arithmetic::kInt8;
    table.generic = int8 ? &generic::kDualShiftLinearInt8 : &generic::kDualShiftLinear;
#if PRISM_X86
    table.avx2 = int8 ? &avx2::kDualShiftLinearInt8 : &avx2::kDualShiftLinear;
    table.avx512 = int8 ? &avx512::kDualShiftLinearInt8 : &avx512::kDualShiftLinear;
    if (arithmetic == Arithmetic::kInt16) {
      table.avx2 = &avx2::kDualShiftLinearInt16;
      table.avx512 = &avx512::kDualShiftLinearInt16;
    }
    if (arithmetic == Arithmetic::kBFloat16) table.avx512_bf16 = &avx512_bf16::kDualShiftLinear;
#endif
  }
  return *Pick<Kernel>("dual_shift_linear", table);
}

}  // namespace prism::cpu
