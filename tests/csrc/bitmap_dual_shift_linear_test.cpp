#include "cpu/bitmap_dual_shift_linear.h"

#include "bitmap_cases.h"
#include "cpu/activations.h"

using namespace prism;

int main() {
  test::ForEachIsa([] {
    test::ForEachDualShift([](const cpu::BitmapDualShift& weight, bool valid) {
      for (const int64_t m : {1, 2, 3, 5}) {
        test::Buffer<float> x = test::RandomActivations(m, weight.k);
        test::Buffer<uint16_t> column_scale(weight.k);
        for (int64_t j = 0; j < weight.k; ++j) column_scale[j] = FloatToBFloat16(0.5f + std::abs(test::RandomNormal()));
        test::Buffer<float> sums(m * test::kRows), expected(m * test::kRows);
        const auto floats = cpu::FloatActivations(x.data(), DType::kFloat32, m, weight.k, column_scale.data());
        cpu::generic::BitmapDualShiftLinear(weight, floats.data(), m, 0, test::kRows, expected.data(), test::kRows);
        const float scale = 64.0f * static_cast<float>(1 << weight.bits);
        const auto check = [&](const char* what) {
          for (int64_t i = 0; valid && i < sums.size(); ++i) test::CheckClose(sums[i], expected[i], scale, what);
        };
        cpu::PickBitmapDualShiftLinear()(weight, floats.data(), m, 0, test::kRows, sums.data(), test::kRows);
        check("float32");
        if (const auto kernel = cpu::PickBitmapDualShiftLinearSplit(weight, DType::kBFloat16)) {
          const auto split = cpu::SplitActivations(x.data(), DType::kFloat32, m, weight.k, column_scale.data());
          kernel(weight, split.data(), m, 0, test::kRows, sums.data(), test::kRows);
          check("split");
        }
      }
    });
  });
  return 0;
}
