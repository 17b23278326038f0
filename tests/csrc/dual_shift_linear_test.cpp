// dual_shift_linear on exact-size buffers: every width of code, group sizes of every path, few and many tokens.
#include "cpu/dual_shift_linear.h"

#include "cpu/dual_shift_dequantize.h"
#include "quad_linear_cases.h"

using namespace prism;

namespace {

void Test(int64_t n, int64_t k, int64_t group_size, int bits, Codebook codebook, int64_t m) {
  const int64_t blocks = NumBlocks32(k);
  test::Buffer<uint8_t> codes(NumPanels(n) * blocks * bits * kQuadBytes);
  for (int64_t i = 0; i < codes.size(); ++i) codes[i] = static_cast<uint8_t>(test::RandomInt(0, 255));
  test::Grid grid(n, k, group_size, bits, codebook);
  test::Buffer<float> ones(blocks * kBlockColumns), weight(n * k);
  for (int64_t j = 0; j < ones.size(); ++j) ones[j] = 1.0f;
  cpu::DualShiftDequantizeArgs args;
  args.codes = codes.data();
  args.scale = grid.scale.data();
  args.zero = grid.zero.data();
  args.column_scale = ones.data();
  args.n = n, args.k = k, args.groups = grid.view.groups, args.group_size = group_size;
  args.bits = bits, args.codebook = codebook, args.weight = weight.data();
  cpu::generic::DualShiftDequantize(args, 0, NumPanels(n));
  const cpu::PlaneCodes packed{codes.data(), bits, blocks};
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    for (const bool int8 : {false, true}) {
      if (int8 && codebook != Codebook::kUniform) continue;
      const cpu::Arithmetic arithmetic = cpu::ArithmeticFor(dtype, int8, grid.view, m, k, cpu::DualShiftLinearInt16Tokens(bits));
      const auto& kernel = cpu::PickDualShiftLinear(arithmetic, group_size, k);
      test::CheckLinear(kernel, packed, grid.view, arithmetic, dtype, m, n, k, weight);
    }
  }
}

}  // namespace

int main() {
  test::ForEachIsa([] {
    for (const int64_t m : test::kTokens) {
      for (const int bits : cpu::CodeBits::kAll) Test(65, 130, 32, bits, Codebook::kUniform, m);
      Test(17, 33, 32, 4, Codebook::kNf4, m);
      Test(33, 31, 64, 3, Codebook::kNf3, m);
      Test(1, 1, 1, 4, Codebook::kUniform, m);
      Test(18, 65, 5, 4, Codebook::kUniform, m);
    }
  });
  return 0;
}
