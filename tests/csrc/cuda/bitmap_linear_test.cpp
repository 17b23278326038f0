// bitmap_linear and bitmap_dual_shift_linear on the device against sums in double: every shape of the tensor-core kernel,
// splits of k, the plain kernel, densities 0 to 1, dead rows and columns, widths, codebooks and group sizes.
#include "cuda/bitmap_linear.cuh"

#include <vector>

#include "bitmap_cases.h"
#include "cpu/bitmap_dual_shift_dequantize.h"
#include "cpu/bitmap_unpack.h"
#include "cuda/bitmap_dual_shift_linear.cuh"

using namespace prism;

namespace {

const int64_t kRows = test::kBitmapRows, kPanels = NumPanels(test::kBitmapRows);

float Rounded(float value, DType dtype) {
  uint32_t bits = 0;
  StoreFloat(value, &bits, dtype, 0);
  return LoadFloat(&bits, dtype, 0);
}

// A tensor of a dtype in an exact-size buffer, and what it holds.
struct Tensor {
  Tensor(int64_t count, DType dtype_) : dtype(dtype_), bytes(count * DTypeBytes(dtype_)) {}
  float operator[](int64_t i) { return LoadFloat(bytes.data(), dtype, i); }
  void Fill() {
    for (int64_t i = 0; i < bytes.size() / DTypeBytes(dtype); ++i) StoreFloat(test::RandomNormal(), bytes.data(), dtype, i);
  }
  DType dtype;
  test::Buffer<uint8_t> bytes;
};

test::Buffer<bool> MaskOf(int64_t k, int kind) {
  test::Buffer<bool> mask = test::RandomMask(k);
  for (int64_t i = 0; i < mask.size(); ++i) {
    if (kind == 1) mask[i] = false;                                            // nothing, all panels empty
    if (kind == 2) mask[i] = true;                                             // everything
    if (kind == 3) mask[i] = i / k == 3 || (i / k >= 32 && i % k < k / 2);     // one row, an empty panel, half of a third
  }
  return mask;
}

void CheckSums(Tensor& y, const std::vector<double>& expected, const std::vector<double>& magnitude, const char* what, int64_t m, int64_t k) {
  const double rounding = y.dtype == DType::kBFloat16 ? 0x1p-8 : y.dtype == DType::kFloat16 ? 0x1p-11 : 0x1p-23;
  for (int64_t i = 0; i < m * kRows; ++i) {
    const double error = std::abs(static_cast<double>(y[i]) - expected[static_cast<size_t>(i)]);
    const double limit = 1.01 * rounding * std::abs(expected[static_cast<size_t>(i)]) + 0x1p-18 * magnitude[static_cast<size_t>(i)] + 1e-30;
    PRISM_CHECK(error <= limit, "%s m=%ld k=%ld element %ld: %g, expected %g", what, m, k, i, static_cast<double>(y[i]), expected[static_cast<size_t>(i)]);
  }
}

// expected [m, 37] = x @ weight^T * token + bias, in double.
struct Sums {
  template <class X>
  Sums(const std::vector<float>& weight, int64_t m, int64_t k, X x, const std::vector<float>& token, Tensor* bias)
      : expected(static_cast<size_t>(m * kRows)), magnitude(expected.size()) {
    for (int64_t i = 0; i < m; ++i) {
      for (int64_t row = 0; row < kRows; ++row) {
        double sum = 0.0, size = 0.0;
        for (int64_t j = 0; j < k; ++j) {
          const double product = static_cast<double>(x(i, j)) * static_cast<double>(weight[static_cast<size_t>(row * k + j)]);
          sum += product;
          size += std::abs(product);
        }
        const size_t at = static_cast<size_t>(i * kRows + row);
        expected[at] = sum * static_cast<double>(token[static_cast<size_t>(i)]) + (bias != nullptr ? static_cast<double>((*bias)[row]) : 0.0);
        magnitude[at] = size * static_cast<double>(token[static_cast<size_t>(i)]);
      }
    }
  }
  std::vector<double> expected, magnitude;
};

// Aligned to 16 bytes, as those of torch are.
struct Scratch {
  explicit Scratch(int64_t bytes) : data(bytes) {
    for (int64_t i = 0; i < bytes; ++i) data[i] = 0xff;
  }
  test::Buffer<uint8_t> data;
};

void TestValues(int64_t m, int64_t k, int kind, DType dtype, DType values_dtype, bool with_bias, int64_t shift) {
  test::Buffer<bool> mask = MaskOf(k, kind);
  test::Bitmap<2> bitmap(mask, k, 0);
  const int64_t size = bitmap.Size();
  Tensor values(size, values_dtype), x(m * k + shift, dtype), bias(kRows, dtype), y(m * kRows, dtype), dense(kRows * k, values_dtype);
  values.Fill();
  x.Fill();
  bias.Fill();
  cpu::BitmapUnpackArgs unpack{bitmap.bytes.data(), values.bytes.data(), bitmap.offsets.data(), size, kRows, k, DTypeBytes(values_dtype), dense.bytes.data()};
  cpu::generic::BitmapUnpack(unpack, 0, kPanels);
  std::vector<float> weight(static_cast<size_t>(kRows * k)), ones(static_cast<size_t>(m), 1.0f);
  for (size_t i = 0; i < weight.size(); ++i) weight[i] = dense[static_cast<int64_t>(i)];
  cuda::BitmapLinearArgs args;
  args.x = x.bytes.data() + shift * DTypeBytes(dtype);
  args.bitmap = bitmap.bytes.data();
  args.values = values.bytes.data();
  args.panel_offsets = bitmap.offsets.data();
  args.bias = with_bias ? bias.bytes.data() : nullptr;
  args.x_dtype = dtype;
  args.values_dtype = values_dtype;
  args.size = size;
  args.m = m;
  args.n = kRows;
  args.k = k;
  args.y = y.bytes.data();
  Scratch scratch(cuda::BitmapLinearScratchBytes(args));
  args.scratch = scratch.data.data();
  PRISM_CHECK(cuda::BitmapLinear(args, nullptr) == cudaSuccess, "launch");
  const Sums sums(weight, m, k, [&](int64_t i, int64_t j) { return x[shift + i * k + j]; }, ones, with_bias ? &bias : nullptr);
  CheckSums(y, sums.expected, sums.magnitude, "values", m, k);
  if (kind != 0) return;
  bitmap.PromiseTooMuch();  // any result, no access outside
  PRISM_CHECK(cuda::BitmapLinear(args, nullptr) == cudaSuccess, "launch");
}

struct CodesCase {
  int64_t m, k, group_size;
  int bits, kind;
  DType dtype;
  bool quantized;
  Codebook codebook = Codebook::kUniform;
};

void TestCodes(const CodesCase& c) {
  const int64_t k = c.k, m = c.m, groups = CeilDiv(k, c.group_size);
  test::Buffer<bool> mask = MaskOf(k, c.kind);
  test::Bitmap<4> bitmap(mask, k, c.bits);
  const int64_t size = bitmap.Size();
  test::Buffer<uint8_t> codes = test::RandomBytes(size);
  test::Buffer<uint8_t> zero = test::RandomBytes(c.codebook == Codebook::kUniform ? kPanels * groups * ZeroBytes(c.bits) : 0);
  test::Buffer<uint16_t> scale(kPanels * groups * kPanelRows), column_scale(k);
  for (int64_t i = 0; i < scale.size(); ++i) scale[i] = FloatToBFloat16(static_cast<float>(test::RandomInt(1, 999)) / 512);
  for (int64_t i = 0; i < k; ++i) column_scale[i] = FloatToBFloat16(static_cast<float>(test::RandomInt(128, 512)) / 256);
  Tensor x(m * k, c.dtype), bias(kRows, c.dtype), y(m * kRows, c.dtype);
  x.Fill();
  bias.Fill();

  cuda::BitmapDualShiftLinearArgs args;
  args.x = x.bytes.data();
  args.bitmap = bitmap.bytes.data();
  args.codes = codes.data();
  args.panel_offsets = bitmap.offsets.data();
  args.scale = scale.data();
  args.zero = zero.data();
  args.column_scale = column_scale.data();
  args.bias = bias.bytes.data();
  args.dtype = c.dtype;
  args.size = size;
  args.m = m;
  args.n = kRows;
  args.k = k;
  args.group_size = c.group_size;
  args.groups = groups;
  args.bits = c.bits;
  args.codebook = c.codebook;
  args.quantized = c.quantized;
  args.y = y.bytes.data();
  Scratch scratch(cuda::BitmapDualShiftLinearScratchBytes(args));
  args.scratch = scratch.data.data();
  PRISM_CHECK(cuda::BitmapDualShiftLinear(args, nullptr) == cudaSuccess, "launch");

  // The weight with column scales of 1, and x c as the kernel takes it.
  std::vector<float> weight(static_cast<size_t>(kRows * k)), factors(static_cast<size_t>(NumBlocks32(k) * kBlockColumns), 1.0f);
  cpu::BitmapDualShiftDequantizeArgs decode;
  decode.bitmap = args.bitmap;
  decode.codes = args.codes;
  decode.panel_offsets = args.panel_offsets;
  decode.size = size;
  decode.grid.scale = args.scale;
  decode.grid.zero = args.zero;
  decode.grid.column_scale = factors.data();
  decode.grid.n = kRows;
  decode.grid.k = k;
  decode.grid.group_size = c.group_size;
  decode.grid.groups = groups;
  decode.grid.bits = c.bits;
  decode.grid.codebook = c.codebook;
  decode.grid.dtype = DType::kFloat32;
  decode.grid.weight = weight.data();
  cpu::generic::BitmapDualShiftDequantize(decode, 0, kPanels);
  const bool rounds = c.dtype != DType::kFloat32 && !c.quantized && (c.group_size >= k || c.group_size % 32 == 0);
  std::vector<float> scaled(static_cast<size_t>(m * k)), token(static_cast<size_t>(m), 1.0f);
  for (int64_t i = 0; i < m; ++i) {
    float largest = 0.0f;
    for (int64_t j = 0; j < k; ++j) {
      float& value = scaled[static_cast<size_t>(i * k + j)];
      value = x[i * k + j] * BFloat16ToFloat(column_scale[j]);
      if (rounds) value = Rounded(value, c.dtype);
      largest = std::max(largest, std::abs(value));
    }
    if (!c.quantized) continue;
    token[static_cast<size_t>(i)] = largest / 127.0f > 0.0f ? largest / 127.0f : 1.0f;
    for (int64_t j = 0; j < k; ++j) {
      float& value = scaled[static_cast<size_t>(i * k + j)];
      value = std::clamp(std::nearbyint(value / token[static_cast<size_t>(i)]), -127.0f, 127.0f);
    }
  }
  if (rounds && c.codebook != Codebook::kUniform) {  // levels are rounded too: the weight is level * scale, exactly divisible
    for (int64_t i = 0; i < kRows * k; ++i) {
      const int64_t row = i / k, at = (row / kPanelRows * groups + i % k / c.group_size) * kPanelRows + row % kPanelRows;
      const float s = BFloat16ToFloat(scale[at]);
      float& value = weight[static_cast<size_t>(i)];
      value = Rounded(value / s, c.dtype) * s;
    }
  }
  const Sums sums(weight, m, k, [&](int64_t i, int64_t j) { return scaled[static_cast<size_t>(i * k + j)]; }, token, &bias);
  CheckSums(y, sums.expected, sums.magnitude, "codes", m, k);
  if (c.kind != 0) return;
  bitmap.PromiseTooMuch();
  PRISM_CHECK(cuda::BitmapDualShiftLinear(args, nullptr) == cudaSuccess, "launch");
}

}  // namespace

int main() {
  constexpr DType kFloat = DType::kFloat32, kHalf = DType::kFloat16, kBfloat = DType::kBFloat16;
  int kind = 0;
  for (const int64_t k : {1, 33, 130, 608}) {
    for (const int64_t m : {1, 8, 9, 35}) {
      TestValues(m, k, kind % 4, kind % 3 == 0 ? kHalf : kBfloat, kind % 3 == 0 ? kHalf : kBfloat, kind % 2 == 0, 0);
      ++kind;
    }
  }
  TestValues(3, 2112, 0, kBfloat, kBfloat, true, 0);  // blocks that share columns
  TestValues(66, 320, 2, kHalf, kHalf, false, 0);
  TestValues(2, 64, 0, kBfloat, kBfloat, true, 1);  // x is not aligned
  TestValues(5, 70, 0, kFloat, kBfloat, true, 0);
  TestValues(34, 300, 2, kBfloat, kFloat, false, 0);

  for (kind = 0; kind < 4; ++kind) {
    TestCodes({1, 640, 64, 4, kind, kBfloat, false});
    TestCodes({8, 416, 32, 4, kind, kHalf, false});
    const int bits[4] = {2, 3, 6, 8};
    TestCodes({3, 290, bits[kind] % 2 == 0 ? 64 : 32, bits[kind], kind % 2 * 2, bits[kind] == 2 ? kHalf : kBfloat, bits[kind] == 8});
  }
  TestCodes({2, 4224, 128, 4, 0, kBfloat, false});
  TestCodes({12, 1088, 96, 4, 0, kBfloat, false});
  TestCodes({20, 333, 64, 4, 2, kHalf, false});
  TestCodes({4, 200, 64, 4, 0, kFloat, true});
  TestCodes({17, 520, 160, 4, 0, kBfloat, true});
  TestCodes({3, 290, 64, 5, 0, kBfloat, false});
  TestCodes({5, 77, 5000, 4, 0, kBfloat, true});
  TestCodes({1, 45, 45, 4, 2, kHalf, false});
  TestCodes({3, 290, 64, 4, 0, kBfloat, false, Codebook::kNf4});
  TestCodes({18, 130, 32, 3, 0, kHalf, false, Codebook::kNf3});
  TestCodes({3, 70, 5, 4, 0, kBfloat, false});  // the plain kernel from here on
  TestCodes({34, 530, 1, 3, 0, kBfloat, true});
  TestCodes({2, 100, 64, 4, 0, kFloat, false});
  TestCodes({2, 100, 48, 4, 0, kFloat, false, Codebook::kNf4});
  return 0;
}
