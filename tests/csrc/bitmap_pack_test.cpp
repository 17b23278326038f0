// bitmap_pack and bitmap_dual_shift_pack on exact-size buffers: every instruction set against the generic kernels.
#include "cpu/bitmap_pack.h"

#include "bitmap_cases.h"
#include "cpu/bitmap_dual_shift_pack.h"

using namespace prism;

namespace {

void CheckEqual(test::Buffer<uint8_t>& actual, test::Buffer<uint8_t>& expected, const char* what, int64_t k) {
  for (int64_t i = 0; i < actual.size(); ++i) PRISM_CHECK(actual[i] == expected[i], "%s k=%ld byte %ld", what, k, i);
}

void TestMasks(int64_t k) {
  const int64_t bytes = test::kRows * 8 * cpu::NumBlocks(k);
  test::Buffer<bool> mask(test::kRows * k);
  test::Buffer<uint16_t> halves(test::kRows * k);
  test::Buffer<uint32_t> floats(test::kRows * k);
  for (int64_t i = 0; i < mask.size(); ++i) {
    mask[i] = test::RandomInt(0, 1) == 1;
    halves[i] = mask[i] ? 0x3f80 : 0x8000;  // -0 counts as 0
    floats[i] = mask[i] ? 0x7fc00000 : 0x80000000;  // NaN is kept
  }
  test::Buffer<uint8_t> expected(bytes), actual(bytes);
  cpu::generic::kBitmapPack.from_mask(mask.data(), test::kRows, k, expected.data());
  const cpu::BitmapPackKernel& kernel = *cpu::PickBitmapPack();
  kernel.from_mask(mask.data(), test::kRows, k, actual.data());
  CheckEqual(actual, expected, "from_mask", k);
  kernel.from_weight(halves.data(), 2, test::kRows, k, actual.data());
  CheckEqual(actual, expected, "from_weight of 2 bytes", k);
  kernel.from_weight(floats.data(), 4, test::kRows, k, actual.data());
  CheckEqual(actual, expected, "from_weight of 4 bytes", k);
}

void TestStreams(int64_t k) {
  test::Buffer<uint8_t> bitmap = test::RandomBitmap(k);
  test::Buffer<uint8_t> weight(test::kRows * k * 4);
  for (int64_t i = 0; i < weight.size(); ++i) weight[i] = static_cast<uint8_t>(test::RandomInt(0, 255));
  const int64_t kept = test::Offsets(bitmap, k, 0).back();
  for (const int64_t element_bytes : {2, 4}) {
    test::Buffer<uint8_t> actual(kept * element_bytes), expected(kept * element_bytes);
    cpu::PickBitmapPack()->compress(weight.data(), element_bytes, bitmap.data(), test::kRows, k, actual.data());
    cpu::generic::kBitmapPack.compress(weight.data(), element_bytes, bitmap.data(), test::kRows, k, expected.data());
    CheckEqual(actual, expected, "compress", k);
  }
  for (const int bits : {2, 3, 4, 5, 6, 8}) {
    const int64_t bytes = test::Offsets(bitmap, k, bits).back();
    test::Buffer<uint8_t> actual(bytes), expected(bytes);
    cpu::PickBitmapDualShiftPack()(weight.data(), bitmap.data(), test::kRows, k, bits, actual.data());
    cpu::generic::BitmapDualShiftPack(weight.data(), bitmap.data(), test::kRows, k, bits, expected.data());
    CheckEqual(actual, expected, "bitmap_dual_shift_pack", k);
  }
}

}  // namespace

int main() {
  test::ForEachIsa([] {
    for (const int64_t k : test::kColumns) {
      TestMasks(k);
      TestStreams(k);
    }
  });
  return 0;
}
