// sparse24_dual_shift_dequantize on the device against its formula, bit for bit, in exact-size buffers.
#include "cuda/sparse24_dual_shift_dequantize.cuh"

#include <cmath>

#include "cuda/sparse24_pack.cuh"
#include "sparse24_cases.h"

using namespace prism;

namespace {

void TestDecoding(int64_t n, int64_t k, int64_t group_size, DType dtype) {
  const int64_t panels = NumPanels(n), groups = CeilDiv(k, group_size);
  test::Buffer<uint16_t> scale(panels * groups * 16), column_scale(k);
  test::Buffer<uint8_t> codes(n * k), zero(panels * groups * 8), dense(n * k * DTypeBytes(dtype));
  test::Buffer<uint32_t> words(test::PackedCodeWords(n, k)), columns(test::PackedColumnWords(n, k));
  test::Buffer<bool> mask = test::QuadMask(n, k, 2);
  for (int64_t i = 0; i < n * k; ++i) codes[i] = static_cast<uint8_t>(test::RandomInt(0, 15));
  for (int64_t i = 0; i < zero.size(); ++i) zero[i] = static_cast<uint8_t>(test::RandomInt(0, 255));
  for (int64_t i = 0; i < scale.size(); ++i) scale[i] = FloatToBFloat16(0.01f + 0.1f * std::abs(test::RandomNormal()));
  for (int64_t i = 0; i < k; ++i) column_scale[i] = FloatToBFloat16(0.5f + std::abs(test::RandomNormal()));
  cuda::Sparse24PackCodes(codes.data(), mask.data(), n, k, words.data(), columns.data(), nullptr);
  const cuda::Sparse24DualShift weight{words.data(), columns.data(),      scale.data(),
                                       zero.data(),  column_scale.data(), group_size};
  PRISM_CHECK(cuda::Sparse24DualShiftDequantize(weight, dtype, n, k, dense.data(), nullptr) == cudaSuccess, "launch");
  for (int64_t row = 0; row < n; ++row) {
    for (int64_t i = 0; i < k; ++i) {
      const int64_t at = row / 16 * groups + i / group_size;
      const int z = zero[at * 8 + row % 8] >> (row % 16 / 8 * 4) & 15;
      const float step = static_cast<float>(codes[row * k + i] - z) * BFloat16ToFloat(scale[at * 16 + row % 16]);
      float expected = mask[row * k + i] ? step * BFloat16ToFloat(column_scale[i]) : 0.0f;
      StoreFloat(expected, &expected, dtype, 0);
      expected = LoadFloat(&expected, dtype, 0);
      const float actual = LoadFloat(dense.data(), dtype, row * k + i);
      PRISM_CHECK(FloatBits(actual) == FloatBits(expected), "n=%ld k=%ld g=%ld dtype %d row %ld column %ld: got %g of %g", n, k,
                  group_size, static_cast<int>(dtype), row, i, static_cast<double>(actual), static_cast<double>(expected));
    }
  }
}

}  // namespace

int main() {
  const int64_t shapes[][2] = {{1, 1}, {5, 7}, {17, 65}, {16, 64}, {33, 200}, {7, 132}, {40, 576}};
  for (const auto& [n, k] : shapes) {
    for (const int64_t group_size : {32, 64, 96, 192, 4096}) {
      for (const DType dtype : {DType::kFloat32, DType::kFloat16, DType::kBFloat16}) TestDecoding(n, k, group_size, dtype);
    }
  }
  return 0;
}
