#include "cpu/bitmap_unpack.h"

#include "bitmap_cases.h"

using namespace prism;

int main() {
  test::ForEachIsa([] {
    test::ForEachValues([](const cpu::BitmapValues& weight, bool valid) {
      const int64_t bytes = test::kRows * weight.k * weight.ElementBytes();
      test::Buffer<uint8_t> out(bytes), expected(bytes);
      cpu::PickBitmapUnpack()(weight, 0, test::kRows, out.data());
      cpu::generic::BitmapUnpack(weight, 0, test::kRows, expected.data());
      for (int64_t i = 0; valid && i < bytes; ++i) PRISM_CHECK(out[i] == expected[i], "k=%ld byte %ld", weight.k, i);
    });
  });
  return 0;
}
