// bitmap_dual_shift_linear on exact-size buffers, and with bitmaps that promise more codes than are stored.
#include "cpu/bitmap_dual_shift_linear.h"

#include "bitmap_cases.h"
#include "cpu/bitmap_dual_shift_dequantize.h"
#include "quad_linear_cases.h"

using namespace prism;

namespace {

void Test(int64_t k, int64_t group_size, int bits, Codebook codebook, int64_t m) {
  constexpr int64_t n = test::kBitmapRows;
  test::Buffer<bool> mask = test::RandomMask(k);
  test::Bitmap<4> bitmap(mask, k, bits);
  test::Buffer<uint8_t> codes = test::RandomBytes(bitmap.Size());
  test::Grid grid(n, k, group_size, bits, codebook);
  test::Buffer<float> ones(NumBlocks32(k) * kBlockColumns), weight(n * k);
  for (int64_t j = 0; j < ones.size(); ++j) ones[j] = 1.0f;
  cpu::BitmapDualShiftDequantizeArgs args;
  args.bitmap = bitmap.bytes.data();
  args.codes = codes.data();
  args.panel_offsets = bitmap.offsets.data();
  args.size = codes.size();
  args.grid.scale = grid.scale.data();
  args.grid.zero = grid.zero.data();
  args.grid.column_scale = ones.data();
  args.grid.n = n, args.grid.k = k, args.grid.groups = grid.view.groups, args.grid.group_size = group_size;
  args.grid.bits = bits, args.grid.codebook = codebook, args.grid.weight = weight.data();
  cpu::generic::BitmapDualShiftDequantize(args, 0, NumPanels(n));
  const cpu::BitmapCodes packed{bitmap.bytes.data(), codes.data(), bitmap.offsets.data(), codes.size(), NumQuads(k), bits};
  for (const bool promise : {false, true}) {
    if (promise) bitmap.PromiseTooMuch();
    for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
      for (const bool int8 : {false, true}) {
        if (int8 && codebook != Codebook::kUniform) continue;
        const cpu::Arithmetic arithmetic = cpu::ArithmeticFor(dtype, int8, grid.view, m, k, cpu::BitmapDualShiftLinearInt16Tokens(bits));
        const auto& kernel = cpu::PickBitmapDualShiftLinear(arithmetic, group_size, k);
        if (promise) {
          test::RunLinear(kernel, packed, grid.view, arithmetic, dtype, m, n, k);
        } else {
          test::CheckLinear(kernel, packed, grid.view, arithmetic, dtype, m, n, k, weight);
        }
      }
    }
  }
}

}  // namespace

int main() {
  test::ForEachIsa([] {
    for (const int64_t m : test::kTokens) {
      for (const int bits : cpu::CodeBits::kAll) Test(130, 32, bits, Codebook::kUniform, m);
      Test(33, 4, 4, Codebook::kNf4, m);
      Test(31, 64, 3, Codebook::kNf3, m);
      Test(1, 1, 4, Codebook::kUniform, m);
      Test(65, 5, 4, Codebook::kUniform, m);
    }
  });
  return 0;
}
