// bitmap_unpack on exact-size buffers: every value at its place, and no read behind a stream that is too short.
#include "cpu/bitmap_unpack.h"

#include "bitmap_cases.h"

using namespace prism;

namespace {

template <class T>
void Test(int64_t k) {
  test::Buffer<bool> mask = test::RandomMask(k);
  test::Bitmap<2> bitmap(mask, k, 0);
  test::Buffer<T> values(bitmap.Size()), weight(mask.size()), expected(mask.size());
  int64_t next = 0;
  for (int64_t panel = 0; panel < NumPanels(test::kBitmapRows); ++panel) {
    for (int64_t j = 0; j < k; j += 2) {
      for (int64_t row = panel * kPanelRows; row < std::min((panel + 1) * kPanelRows, test::kBitmapRows); ++row) {
        for (int64_t c = j; c < std::min(j + 2, k); ++c) {
          expected[row * k + c] = mask[row * k + c] ? values[next] = static_cast<T>(test::RandomInt(1, 65535)) : T{0};
          next += mask[row * k + c];
        }
      }
    }
  }
  cpu::BitmapUnpackArgs args{bitmap.bytes.data(), values.data(), bitmap.offsets.data(), values.size(), test::kBitmapRows,
                             k, sizeof(T), weight.data()};
  const int64_t panels = NumPanels(test::kBitmapRows);
  cpu::PickBitmapUnpack()(args, 0, 1);
  cpu::PickBitmapUnpack()(args, 1, panels);
  test::CheckEqual(weight, expected, "weight", k, sizeof(T));
  bitmap.PromiseTooMuch();
  cpu::PickBitmapUnpack()(args, 0, panels);
  if (values.size() > 0) PRISM_CHECK(weight[0] == values[0], "k=%ld", k);
}

}  // namespace

int main() {
  test::ForEachIsa([] {
    for (const int64_t k : test::kBitmapColumns) {
      Test<uint16_t>(k);
      Test<uint32_t>(k);
    }
  });
  return 0;
}
