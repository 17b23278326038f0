// bitmap_pack and bitmap_dual_shift_pack on the device against the CPU kernels, byte for byte.
#include "cuda/bitmap_pack.cuh"

#include "bitmap_cases.h"
#include "cpu/bitmap_dual_shift_pack.h"
#include "cpu/bitmap_pack.h"
#include "cuda/bitmap_dual_shift_pack.cuh"
#include "cuda/common/bitmap.cuh"

using namespace prism;

namespace {

const int64_t kPanels = NumPanels(test::kBitmapRows);

template <class T>
void TestValues(test::Buffer<bool>& mask, int64_t k, bool with_mask) {
  test::Bitmap<2> expected(mask, k, 0);
  test::Buffer<T> weight(mask.size()), values(expected.Size()), expected_values(expected.Size());
  for (int64_t i = 0; i < mask.size(); ++i) {
    weight[i] = mask[i] ? static_cast<T>(~T{0} >> 1) - static_cast<T>(i) : static_cast<T>(T{1} << (8 * sizeof(T) - 1));
  }
  const bool* kept = with_mask ? mask.data() : nullptr;
  test::Buffer<uint8_t> bitmap(expected.bytes.size());
  test::Buffer<int64_t> offsets(kPanels + 1);
  cuda::BitmapPackArgs args{weight.data(), kept, test::kBitmapRows, k, sizeof(T), bitmap.data(), offsets.data(), values.data()};
  PRISM_CHECK(cuda::BitmapMark(args, nullptr) == cudaSuccess, "launch");
  test::CheckEqual(bitmap, expected.bytes, "bitmap", k, sizeof(T));
  test::CheckEqual(offsets, expected.offsets, "offsets", k, sizeof(T));
  PRISM_CHECK(cuda::BitmapGather(args, nullptr) == cudaSuccess, "launch");
  cpu::BitmapPackArgs same{weight.data(), kept, test::kBitmapRows, k, sizeof(T), bitmap.data(), offsets.data(), expected_values.data()};
  cpu::PickBitmapPack()->gather(same, 0, kPanels);
  test::CheckEqual(values, expected_values, "values", k, sizeof(T));
}

void TestCodes(test::Buffer<bool>& mask, int64_t k, int bits) {
  test::Bitmap<4> expected(mask, k, bits);
  test::Buffer<uint8_t> codes = test::RandomBytes(mask.size()), bitmap(expected.bytes.size());
  test::Buffer<uint8_t> packed(expected.Size()), expected_packed(expected.Size());
  test::Buffer<int64_t> offsets(kPanels + 1);
  cuda::BitmapDualShiftPackArgs args{codes.data(), mask.data(), test::kBitmapRows, k, bits, bitmap.data(), offsets.data(), packed.data()};
  PRISM_CHECK(cuda::BitmapDualShiftMark(args, nullptr) == cudaSuccess, "launch");
  test::CheckEqual(bitmap, expected.bytes, "bitmap", k, bits);
  test::CheckEqual(offsets, expected.offsets, "offsets", k, bits);
  PRISM_CHECK(cuda::BitmapDualShiftGather(args, nullptr) == cudaSuccess, "launch");
  cpu::BitmapDualShiftPackArgs same{codes.data(), mask.data(), test::kBitmapRows, k, bits, bitmap.data(), expected.offsets.data(), expected_packed.data()};
  cpu::PickBitmapDualShiftPack()->gather(same, 0, kPanels);
  test::CheckEqual(packed, expected_packed, "codes", k, bits);
}

void TestManyPanels() {
  const int64_t panels = 2500;  // more than the sum takes at once
  test::Buffer<int64_t> offsets(panels + 1);
  for (int64_t i = 0; i < panels; ++i) offsets[i + 1] = i % 7;
  PRISM_CHECK(cuda::SumPanelOffsets(offsets.data(), panels, nullptr) == cudaSuccess, "launch");
  int64_t sum = 0;
  for (int64_t panel = 0; panel <= panels; sum += panel % 7, ++panel) {
    PRISM_CHECK(offsets[panel] == sum, "panel %ld", panel);
  }
}

}  // namespace

int main() {
  for (const int64_t k : {1, 3, 7, 33, 600}) {
    for (int density = 0; density < 3; ++density) {
      test::Buffer<bool> mask = test::RandomMask(k);
      for (int64_t i = 0; density > 0 && i < mask.size(); ++i) mask[i] = density == 2;
      TestValues<uint16_t>(mask, k, true);
      TestValues<uint32_t>(mask, k, false);
      for (const int bits : test::kBitmapWidths) TestCodes(mask, k, bits);
    }
  }
  TestManyPanels();
  return 0;
}
