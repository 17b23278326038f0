#include "cpu/bitmap_linear.h"

#include "bitmap_cases.h"
#include "cpu/activations.h"

using namespace prism;

int main() {
  test::ForEachIsa([] {
    test::ForEachValues([](const cpu::BitmapValues& weight, bool valid) {
      for (const int64_t m : {1, 2, 3, 4, 5}) {
        test::Buffer<float> x = test::RandomActivations(m, weight.k);
        test::Buffer<float> sums(m * test::kRows), expected(m * test::kRows);
        const auto floats = cpu::FloatActivations(x.data(), DType::kFloat32, m, weight.k, nullptr);
        cpu::generic::BitmapLinear(weight, floats.data(), m, 0, test::kRows, expected.data(), test::kRows);
        const auto check = [&](const char* what) {
          for (int64_t i = 0; valid && i < sums.size(); ++i) test::CheckClose(sums[i], expected[i], 32.0f, what);
        };
        cpu::PickBitmapLinear()(weight, floats.data(), m, 0, test::kRows, sums.data(), test::kRows);
        check("float32");
        if (const auto kernel = cpu::PickBitmapLinearBFloat16(weight, DType::kBFloat16)) {
          test::Buffer<uint16_t> halves(x.size());
          for (int64_t i = 0; i < x.size(); ++i) halves[i] = FloatToBFloat16(x[i]);
          const auto prepared = cpu::BFloat16Activations(halves.data(), m, weight.k);
          kernel(weight, prepared.data(), m, 0, test::kRows, sums.data(), test::kRows);
          check("bfloat16");
        }
      }
    });
  });
  return 0;
}
