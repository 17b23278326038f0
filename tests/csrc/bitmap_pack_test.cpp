// bitmap_pack and bitmap_dual_shift_pack on exact-size buffers: their bitmaps, and that every survivor is where the bitmap
// says.
#include "cpu/bitmap_pack.h"

#include <bit>

#include "bitmap_cases.h"
#include "cpu/bitmap_dual_shift_pack.h"

using namespace prism;

namespace {

template <class T>
void TestValues(int64_t k) {
  test::Buffer<bool> mask = test::RandomMask(k);
  test::Bitmap<2> expected(mask, k, 0);
  test::Buffer<T> weight(mask.size());
  // Without a mask, zeros of either sign are pruned and NaN is kept.
  for (int64_t i = 0; i < mask.size(); ++i) {
    weight[i] = mask[i] ? static_cast<T>(~T{0} >> 1) - static_cast<T>(i) : static_cast<T>(T{1} << (8 * sizeof(T) - 1));
  }
  for (const bool* kept : {static_cast<const bool*>(mask.data()), static_cast<const bool*>(nullptr)}) {
    test::Buffer<uint8_t> bitmap(expected.bytes.size());
    test::Buffer<int64_t> offsets(expected.offsets.size());
    test::Buffer<T> values(expected.Size());
    cpu::BitmapPackArgs args{weight.data(), kept, test::kBitmapRows, k, sizeof(T), bitmap.data(), offsets.data(), values.data()};
    const int64_t panels = NumPanels(test::kBitmapRows);
    cpu::PickBitmapPack()->mark(args, 0, panels);
    offsets[0] = 0;
    for (int64_t panel = 0; panel < panels; ++panel) offsets[panel + 1] += offsets[panel];
    cpu::PickBitmapPack()->gather(args, 0, panels);
    test::CheckEqual(bitmap, expected.bytes, "bitmap", k, sizeof(T));
    test::CheckEqual(offsets, expected.offsets, "offsets", k, sizeof(T));
    int64_t next = 0;
    for (int64_t panel = 0; panel < panels; ++panel) {
      for (int64_t j = 0; j < k; j += 2) {
        for (int64_t row = panel * kPanelRows; row < std::min((panel + 1) * kPanelRows, test::kBitmapRows); ++row) {
          for (int64_t c = j; c < std::min(j + 2, k); ++c) {
            if (!mask[row * k + c]) continue;
            PRISM_CHECK(values[next] == weight[row * k + c], "k=%ld value %ld", k, next);
            ++next;
          }
        }
      }
    }
    PRISM_CHECK(next == values.size(), "k=%ld: %ld values", k, next);
  }
}

void TestCodes(int64_t k, int bits) {
  test::Buffer<bool> mask = test::RandomMask(k);
  test::Bitmap<4> expected(mask, k, bits);
  test::Buffer<uint8_t> codes = test::RandomBytes(mask.size()), bitmap(expected.bytes.size()), packed(expected.Size());
  test::Buffer<int64_t> offsets(expected.offsets.size());
  cpu::BitmapDualShiftPackArgs args{codes.data(), mask.data(), test::kBitmapRows, k, bits, bitmap.data(), offsets.data(), packed.data()};
  const int64_t panels = NumPanels(test::kBitmapRows);
  cpu::PickBitmapDualShiftPack()->mark(args, 0, panels);
  offsets[0] = 0;
  for (int64_t panel = 0; panel < panels; ++panel) offsets[panel + 1] += offsets[panel];
  cpu::PickBitmapDualShiftPack()->gather(args, 0, panels);
  test::CheckEqual(bitmap, expected.bytes, "bitmap", k, bits);
  test::CheckEqual(offsets, expected.offsets, "offsets", k, bits);
  const uint8_t* stream = packed.data();
  for (int64_t panel = 0; panel < panels; ++panel) {
    for (int64_t quad = 0; quad < NumQuads(k); ++quad) {
      int64_t kept = 0;
      uint64_t bits_left = cpu::LoadMask<uint64_t>(bitmap.data() + (panel * NumQuads(k) + quad) * cpu::kQuadMaskBytes);
      for (; bits_left != 0; bits_left &= bits_left - 1, ++kept) {
        const int bit = std::countr_zero(bits_left);
        const int64_t i = (panel * kPanelRows + bit / 4) * k + 4 * quad + kQuadOrder[bit % 4];
        const uint32_t code = CodeAt(stream, kept, bits);
        PRISM_CHECK(code == (codes[i] & ((1u << bits) - 1)), "k=%ld bits=%d element %ld", k, bits, i);
      }
      stream += PackedBytes(kept, bits);
    }
  }
}

}  // namespace

int main() {
  test::ForEachIsa([] {
    for (const int64_t k : test::kBitmapColumns) {
      TestValues<uint16_t>(k);
      TestValues<uint32_t>(k);
      for (const int bits : test::kBitmapWidths) TestCodes(k, bits);
    }
  });
  return 0;
}
