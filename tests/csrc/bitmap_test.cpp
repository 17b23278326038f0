// The bitmap kernels on exact-size buffers: pack, unpack and multiply, every instruction set against plain loops.
#include <cmath>

#include "check.h"
#include "cpu/activations.h"
#include "cpu/bitmap_dual_shift_linear.h"
#include "cpu/bitmap_dual_shift_pack.h"
#include "cpu/bitmap_linear.h"
#include "cpu/bitmap_pack.h"
#include "cpu/bitmap_unpack.h"

using namespace prism;

namespace {

constexpr int64_t kRows = 7, kTokens = 3;

// A mask with an empty row, a full row and random ones.
void FillMask(test::Buffer<bool>& mask, int64_t k) {
  for (int64_t i = 0; i < kRows * k; ++i) mask[i] = i / k == 1 || (i / k != 2 && test::RandomInt(0, 1) == 1);
}

void TestValues(int64_t k) {
  const int64_t width = 8 * cpu::NumBlocks(k);
  test::Buffer<bool> mask(kRows * k);
  FillMask(mask, k);
  test::Buffer<uint16_t> weight(kRows * k);
  for (int64_t i = 0; i < weight.size(); ++i) weight[i] = FloatToBFloat16(0.5f * static_cast<float>(test::RandomInt(1, 4)));
  test::Buffer<uint8_t> bitmap(kRows * width);
  const cpu::BitmapPackKernel& pack = *cpu::PickBitmapPack();
  pack.from_mask(mask.data(), kRows, k, bitmap.data());
  test::Buffer<int32_t> offsets(kRows + 1);
  offsets[0] = 0;
  for (int64_t row = 0; row < kRows; ++row) {
    offsets[row + 1] = offsets[row] + static_cast<int32_t>(cpu::CountBits(bitmap.data() + row * width, width));
  }
  test::Buffer<uint16_t> values(offsets[kRows]);
  pack.compress(weight.data(), 2, bitmap.data(), kRows, k, values.data());
  const cpu::BitmapValues packed = {bitmap.data(), values.data(), offsets.data(), values.size(), k, DType::kBFloat16};
  test::Buffer<uint16_t> dense(kRows * k);
  cpu::PickBitmapUnpack()(packed, 0, kRows, dense.data());
  for (int64_t i = 0; i < dense.size(); ++i) {
    PRISM_CHECK(dense[i] == (mask[i] ? weight[i] : 0), "bitmap_unpack k=%ld element %ld", k, i);
  }
  test::Buffer<uint16_t> x(kTokens * k);
  for (int64_t i = 0; i < x.size(); ++i) x[i] = FloatToBFloat16(static_cast<float>(test::RandomInt(-2, 2)));
  test::Buffer<float> sums(kTokens * kRows);
  if (const auto kernel = cpu::PickBitmapLinearBFloat16(packed, DType::kBFloat16)) {
    kernel(packed, cpu::BFloat16Activations(x.data(), kTokens, k).data(), kTokens, 0, kRows, sums.data(), kRows);
  } else {
    const auto activations = cpu::FloatActivations(x.data(), DType::kBFloat16, kTokens, k, nullptr);
    cpu::PickBitmapLinear()(packed, activations.data(), kTokens, 0, kRows, sums.data(), kRows);
  }
  for (int64_t t = 0; t < kTokens; ++t) {
    for (int64_t row = 0; row < kRows; ++row) {
      float expected = 0;  // small multiples of 0.5: exact in any order
      for (int64_t j = 0; j < k; ++j) expected += BFloat16ToFloat(x[t * k + j]) * BFloat16ToFloat(dense[row * k + j]);
      const float got = sums[t * kRows + row];
      PRISM_CHECK(got == expected, "bitmap_linear k=%ld row %ld: %g, expected %g", k, row, got, expected);
    }
  }
}

void TestCodes(int64_t k, int bits) {
  const int64_t width = 8 * cpu::NumBlocks(k), groups = CeilDiv(k, 64);
  test::Buffer<bool> mask(kRows * k);
  FillMask(mask, k);
  test::Buffer<uint8_t> codes(kRows * k), bitmap(kRows * width);
  for (int64_t i = 0; i < codes.size(); ++i) codes[i] = static_cast<uint8_t>(test::RandomInt(0, (1 << bits) - 1));
  cpu::PickBitmapPack()->from_mask(mask.data(), kRows, k, bitmap.data());
  test::Buffer<int32_t> offsets(kRows + 1);
  offsets[0] = 0;
  for (int64_t row = 0; row < kRows; ++row) {
    offsets[row + 1] = offsets[row] + static_cast<int32_t>(cpu::RowCodeBytes(bitmap.data() + row * width, k, bits));
  }
  test::Buffer<uint8_t> packed(offsets[kRows]);
  cpu::PickBitmapDualShiftPack()(codes.data(), bitmap.data(), kRows, k, bits, packed.data());
  test::Buffer<uint16_t> scale(kRows * groups), column_scale(k), x(kTokens * k);
  for (int64_t i = 0; i < scale.size(); ++i) scale[i] = FloatToBFloat16(1.0f);
  for (int64_t j = 0; j < k; ++j) column_scale[j] = FloatToBFloat16(1.0f);
  for (int64_t i = 0; i < x.size(); ++i) x[i] = FloatToBFloat16(static_cast<float>(test::RandomInt(-2, 2)));
  test::Buffer<uint8_t> zero(kRows * CeilDiv(groups * bits, 8));  // zero points 0
  for (int64_t i = 0; i < zero.size(); ++i) zero[i] = 0;
  const cpu::BitmapDualShift w = {bitmap.data(), packed.data(), offsets.data(), scale.data(), zero.data(), nullptr,
                                  packed.size(), k, 64, groups, bits, 0};
  test::Buffer<float> sums(kTokens * kRows);
  if (const auto kernel = cpu::PickBitmapDualShiftLinearSplit(w, DType::kBFloat16)) {
    const auto activations = cpu::SplitActivations(x.data(), DType::kBFloat16, kTokens, k, column_scale.data());
    kernel(w, activations.data(), kTokens, 0, kRows, sums.data(), kRows);
  } else {
    const auto activations = cpu::FloatActivations(x.data(), DType::kBFloat16, kTokens, k, column_scale.data());
    cpu::PickBitmapDualShiftLinear()(w, activations.data(), kTokens, 0, kRows, sums.data(), kRows);
  }
  for (int64_t t = 0; t < kTokens; ++t) {
    for (int64_t row = 0; row < kRows; ++row) {
      float expected = 0;  // integers: exact in any order
      for (int64_t j = 0; j < k; ++j) {
        if (mask[row * k + j]) expected += BFloat16ToFloat(x[t * k + j]) * static_cast<float>(codes[row * k + j]);
      }
      const float got = sums[t * kRows + row];
      PRISM_CHECK(got == expected, "bitmap_dual_shift_linear k=%ld bits=%d row %ld: %g, expected %g", k, bits, row, got, expected);
    }
  }
}

}  // namespace

int main() {
  test::ForEachIsa([] {
    for (const int64_t k : {1, 7, 63, 64, 65, 127, 130, 257}) {
      TestValues(k);
      for (const int bits : {2, 3, 4, 5, 6, 8}) TestCodes(k, bits);
    }
  });
  return 0;
}
