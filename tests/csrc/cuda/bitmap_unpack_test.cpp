// bitmap_unpack and bitmap_dual_shift_dequantize on the device against the generic CPU kernels, bit for bit.
#include "cuda/bitmap_unpack.cuh"

#include "bitmap_cases.h"
#include "cpu/bitmap_dual_shift_dequantize.h"
#include "cpu/bitmap_unpack.h"
#include "cuda/bitmap_dual_shift_dequantize.cuh"

using namespace prism;

namespace {

const int64_t kPanels = NumPanels(test::kBitmapRows);

template <class T>
void TestValues(test::Bitmap<2>& bitmap, int64_t size, int64_t k) {
  test::Buffer<T> values(size), weight(test::kBitmapRows * k), expected(test::kBitmapRows * k);
  for (int64_t i = 0; i < size; ++i) values[i] = static_cast<T>(i + 1);
  const int64_t n = test::kBitmapRows, bytes = sizeof(T);
  cuda::BitmapUnpackArgs args{bitmap.bytes.data(), values.data(), bitmap.offsets.data(), size, n, k, bytes, weight.data()};
  PRISM_CHECK(cuda::BitmapUnpack(args, nullptr) == cudaSuccess, "launch");
  cpu::BitmapUnpackArgs same{bitmap.bytes.data(), values.data(), bitmap.offsets.data(), size, n, k, bytes, expected.data()};
  cpu::generic::BitmapUnpack(same, 0, kPanels);
  test::CheckEqual(weight, expected, "weight", k, bytes);
}

template <class T>
void TestCodes(test::Buffer<bool>& mask, int64_t k, int64_t group_size, int bits, Codebook codebook, DType dtype) {
  test::Bitmap<4> bitmap(mask, k, bits);
  const int64_t groups = CeilDiv(k, group_size), size = bitmap.Size();
  test::Buffer<uint8_t> codes = test::RandomBytes(size);
  test::Buffer<uint8_t> zero = test::RandomBytes(codebook == Codebook::kUniform ? kPanels * groups * ZeroBytes(bits) : 0);
  test::Buffer<uint16_t> scale(kPanels * groups * kPanelRows), column_scale(k);
  for (int64_t i = 0; i < scale.size(); ++i) scale[i] = FloatToBFloat16(static_cast<float>(test::RandomInt(1, 999)) / 512);
  const int64_t padded = NumBlocks32(k) * kBlockColumns;
  test::Buffer<float> factors(padded);
  for (int64_t i = 0; i < padded; ++i) factors[i] = 1.0f;
  for (int64_t i = 0; i < k; ++i) {
    column_scale[i] = FloatToBFloat16(static_cast<float>(test::RandomInt(1, 999)) / 256);
    factors[i] = BFloat16ToFloat(column_scale[i]);
  }
  test::Buffer<T> weight(test::kBitmapRows * k), expected(test::kBitmapRows * k);
  cuda::BitmapDualShiftDequantizeArgs args;
  args.bitmap = bitmap.bytes.data();
  args.codes = codes.data();
  args.panel_offsets = bitmap.offsets.data();
  args.scale = scale.data();
  args.zero = zero.data();
  args.column_scale = column_scale.data();
  args.size = size;
  args.n = test::kBitmapRows;
  args.k = k;
  args.group_size = group_size;
  args.groups = groups;
  args.bits = bits;
  args.codebook = codebook;
  args.dtype = dtype;
  args.weight = weight.data();
  PRISM_CHECK(cuda::BitmapDualShiftDequantize(args, nullptr) == cudaSuccess, "launch");
  cpu::BitmapDualShiftDequantizeArgs same;
  same.bitmap = args.bitmap;
  same.codes = args.codes;
  same.panel_offsets = args.panel_offsets;
  same.size = size;
  same.grid.scale = args.scale;
  same.grid.zero = args.zero;
  same.grid.column_scale = factors.data();
  same.grid.n = args.n;
  same.grid.k = k;
  same.grid.group_size = group_size;
  same.grid.groups = groups;
  same.grid.bits = bits;
  same.grid.codebook = codebook;
  same.grid.dtype = dtype;
  same.grid.weight = expected.data();
  cpu::generic::BitmapDualShiftDequantize(same, 0, kPanels);
  test::CheckEqual(weight, expected, "weight", k, bits);
}

}  // namespace

int main() {
  for (const int64_t k : {1, 3, 7, 33, 130, 520}) {
    for (int density = 0; density < 3; ++density) {
      test::Buffer<bool> mask = test::RandomMask(k);
      for (int64_t i = 0; density > 0 && i < mask.size(); ++i) mask[i] = density == 2;
      test::Bitmap<2> bitmap(mask, k, 0);
      const int64_t size = bitmap.Size();
      TestValues<uint16_t>(bitmap, size, k);
      bitmap.PromiseTooMuch();
      TestValues<uint32_t>(bitmap, size, k);
      int64_t group_size = k > 100 ? 64 : 5;
      for (const int bits : test::kBitmapWidths) {
        TestCodes<uint16_t>(mask, k, group_size, bits, Codebook::kUniform, bits % 2 == 0 ? DType::kBFloat16 : DType::kFloat16);
        group_size = group_size == 64 ? 33 : 64;
      }
      TestCodes<float>(mask, k, 32, 4, Codebook::kNf4, DType::kFloat32);
      TestCodes<float>(mask, k, 1, 3, Codebook::kNf3, DType::kFloat32);
    }
  }
  return 0;
}
