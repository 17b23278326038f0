// bitmap_dual_shift_dequantize on exact-size buffers: equal to a decoding weight by weight, and no read behind a stream that
// is too short.
#include "cpu/bitmap_dual_shift_dequantize.h"

#include "bitmap_cases.h"

using namespace prism;

namespace {

struct Problem {
  int64_t k, group_size, groups;
  int bits;
  Codebook book;
  test::Buffer<bool> mask;
  test::Bitmap<4> bitmap;
  test::Buffer<uint8_t> codes, zero;
  test::Buffer<uint16_t> scale;
  test::Buffer<float> column_scale;

  Problem(int64_t columns, int width, int64_t group, Codebook codebook)
      : k(columns), group_size(group), groups(CeilDiv(columns, group)), bits(width), book(codebook),
        mask(test::RandomMask(k)), bitmap(mask, k, bits), codes(test::RandomBytes(bitmap.Size())),
        zero(test::RandomBytes(book == Codebook::kUniform ? NumPanels(test::kBitmapRows) * groups * ZeroBytes(bits) : 0)),
        scale(NumPanels(test::kBitmapRows) * groups * kPanelRows), column_scale(NumBlocks32(k) * kBlockColumns) {
    for (int64_t i = 0; i < scale.size(); ++i) scale[i] = FloatToBFloat16(0.5f + std::fabs(test::RandomNormal()));
    for (int64_t j = 0; j < column_scale.size(); ++j) column_scale[j] = 0.25f * static_cast<float>(1 + j % 7);
  }

  cpu::BitmapDualShiftDequantizeArgs Args(DType dtype, void* weight) {
    cpu::BitmapDualShiftDequantizeArgs args{bitmap.bytes.data(), codes.data(), bitmap.offsets.data(), codes.size(), {}};
    cpu::DualShiftDequantizeArgs& grid = args.grid;
    grid.scale = scale.data();
    grid.zero = zero.data();
    grid.column_scale = column_scale.data();
    grid.n = test::kBitmapRows;
    grid.k = k;
    grid.groups = groups;
    grid.group_size = group_size;
    grid.bits = bits;
    grid.codebook = book;
    grid.dtype = dtype;
    grid.weight = weight;
    return args;
  }

  float Zero(int64_t panel, int64_t group, int64_t r) {
    const uint8_t* packed = zero.data() + (panel * groups + group) * ZeroBytes(bits);
    return bits > 4 ? packed[r] : packed[r % 8] >> (r < 8 ? 0 : 4) & 15;
  }

  void Decode(DType dtype, void* weight) {
    const uint8_t* stream = codes.data();
    for (int64_t i = 0; i < test::kBitmapRows * k; ++i) StoreFloat(0.0f, weight, dtype, i);
    for (int64_t unit = 0; unit < NumPanels(test::kBitmapRows) * NumQuads(k); ++unit) {
      const int64_t panel = unit / NumQuads(k), quad = unit % NumQuads(k);
      int64_t kept = 0;
      for (int bit = 0; bit < 64; ++bit) {
        if ((bitmap.bytes[unit * 8 + bit / 8] >> bit % 8 & 1) == 0) continue;
        const uint32_t code = CodeAt(stream, kept++, bits);
        const int64_t r = bit / 4, j = 4 * quad + kQuadOrder[bit % 4], group = j / group_size;
        const float s = BFloat16ToFloat(scale[(panel * groups + group) * kPanelRows + r]);
        const float step = book == Codebook::kUniform ? static_cast<float>(code) - Zero(panel, group, r)
                                                      : CodebookLevels(book)[code];
        StoreFloat(step * s * column_scale[j], weight, dtype, (panel * kPanelRows + r) * k + j);
      }
      stream += PackedBytes(kept, bits);
    }
  }
};

void Test(Problem& problem) {
  for (const DType dtype : {DType::kFloat32, DType::kFloat16, DType::kBFloat16}) {
    const int64_t bytes = test::kBitmapRows * problem.k * DTypeBytes(dtype), panels = NumPanels(test::kBitmapRows);
    test::Buffer<uint8_t> actual(bytes), expected(bytes);
    problem.Decode(dtype, expected.data());
    const cpu::BitmapDualShiftDequantizeArgs args = problem.Args(dtype, actual.data());
    cpu::PickBitmapDualShiftDequantize()(args, 0, 1);
    cpu::PickBitmapDualShiftDequantize()(args, 1, panels);
    test::CheckEqual(actual, expected, "weight", problem.k, problem.bits * 10000 + problem.group_size);
  }
  test::Buffer<float> anything(test::kBitmapRows * problem.k);
  problem.bitmap.PromiseTooMuch();
  cpu::PickBitmapDualShiftDequantize()(problem.Args(DType::kFloat32, anything.data()), 0, NumPanels(test::kBitmapRows));
}

}  // namespace

int main() {
  test::ForEachIsa([] {
    for (const int64_t k : test::kBitmapColumns) {
      for (const int64_t group_size : {int64_t{1}, int64_t{5}, int64_t{16}, int64_t{64}, int64_t{1000}}) {
        for (const int bits : test::kBitmapWidths) {
          for (const Codebook book : {Codebook::kUniform, Codebook::kNf4, Codebook::kNf3}) {
            if (book != Codebook::kUniform && CodebookSize(book) != 1 << bits) continue;
            Problem problem(k, bits, group_size, book);
            Test(problem);
          }
        }
      }
    }
  });
  return 0;
}
