#include "cpu/bitmap_dual_shift_dequantize.h"

#include "bitmap_cases.h"

using namespace prism;

int main() {
  test::ForEachIsa([] {
    test::ForEachDualShift([](const cpu::BitmapDualShift& weight, bool valid) {
      test::Buffer<uint16_t> column_scale(weight.k);
      for (int64_t j = 0; j < weight.k; ++j) column_scale[j] = FloatToBFloat16(0.5f + std::abs(test::RandomNormal()));
      for (const DType dtype : {DType::kFloat32, DType::kFloat16, DType::kBFloat16}) {
        const int64_t bytes = test::kRows * weight.k * DTypeBytes(dtype);
        test::Buffer<uint8_t> out(bytes), expected(bytes);
        cpu::PickBitmapDualShiftDequantize()(weight, column_scale.data(), 0, test::kRows, dtype, out.data());
        cpu::generic::BitmapDualShiftDequantize(weight, column_scale.data(), 0, test::kRows, dtype, expected.data());
        for (int64_t i = 0; valid && i < bytes; ++i) PRISM_CHECK(out[i] == expected[i], "k=%ld byte %ld", weight.k, i);
      }
    });
  });
  return 0;
}
