// bitmap_linear on exact-size buffers, and with bitmaps that promise more values than are stored.
#include "cpu/bitmap_linear.h"

#include "bitmap_cases.h"
#include "quad_linear_cases.h"

using namespace prism;

namespace {

void Test(int64_t k, DType values_dtype, int64_t m) {
  constexpr int64_t n = test::kBitmapRows;
  test::Buffer<bool> mask = test::RandomMask(k);
  test::Bitmap<2> bitmap(mask, k, 0);
  test::Buffer<uint8_t> values(bitmap.Size() * DTypeBytes(values_dtype));
  test::Buffer<float> weight(n * k);
  int64_t next = 0;
  for (int64_t panel = 0; panel < NumPanels(n); ++panel) {
    for (int64_t j = 0; j < k; j += 2) {
      for (int64_t row = panel * kPanelRows; row < std::min((panel + 1) * kPanelRows, n); ++row) {
        for (int64_t c = j; c < std::min(j + 2, k); ++c) {
          weight[row * k + c] = mask[row * k + c] ? static_cast<float>(test::RandomInt(1, 99)) : 0.0f;
          if (mask[row * k + c]) StoreFloat(weight[row * k + c], values.data(), values_dtype, next++);
        }
      }
    }
  }
  const cpu::BitmapValues packed{bitmap.bytes.data(), values.data(), bitmap.offsets.data(), next, cpu::NumPairs(k),
                                 values_dtype};
  const cpu::QuadGrid one_group{nullptr, nullptr, 1, k, 8, Codebook::kUniform};
  for (const bool promise : {false, true}) {
    if (promise) bitmap.PromiseTooMuch();
    for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
      const cpu::Arithmetic arithmetic = cpu::BitmapArithmetic(dtype, values_dtype);
      const auto& kernel = cpu::PickBitmapLinear(arithmetic);
      if (promise) {
        test::RunLinear(kernel, packed, one_group, arithmetic, dtype, m, n, k);
      } else {
        test::CheckLinear(kernel, packed, one_group, arithmetic, dtype, m, n, k, weight);
      }
    }
  }
}

}  // namespace

int main() {
  test::ForEachIsa([] {
    for (const int64_t m : test::kTokens) {
      for (const int64_t k : test::kBitmapColumns) {
        for (const DType dtype : {DType::kFloat32, DType::kFloat16, DType::kBFloat16}) Test(k, dtype, m);
      }
    }
  });
  return 0;
}
