// dual_shift_quantize, _pack, _unpack and _dequantize against the generic CPU kernels, byte for byte.
#include <cmath>
#include <cstring>

#include "check.h"
#include "common/panels.h"
#include "cpu/dual_shift_dequantize.h"
#include "cpu/dual_shift_pack.h"
#include "cpu/dual_shift_quantize.h"
#include "cuda/dual_shift_dequantize.cuh"
#include "cuda/dual_shift_pack.cuh"
#include "cuda/dual_shift_quantize.cuh"

using namespace prism;

namespace {

struct Case {
  int64_t n, k, group_size;
  int bits;
  Codebook codebook;
};

template <class T>
void CheckEqual(test::Buffer<T>& actual, test::Buffer<T>& expected, const char* what, const Case& c) {
  for (int64_t i = 0; i < actual.size(); ++i) {
    PRISM_CHECK(actual[i] == expected[i], "%s: n=%ld k=%ld bits=%d codebook=%d group=%ld element %ld", what, c.n, c.k, c.bits,
                static_cast<int>(c.codebook), c.group_size, i);
  }
}

struct Columns {
  explicit Columns(int64_t k) : bits(k), floats(CeilDiv(k, int64_t{64}) * 64 + cpu::kQuantizeMargin) {
    for (int64_t j = 0; j < floats.size(); ++j) floats[j] = 1.0f;
    for (int64_t j = 0; j < k; ++j) {
      bits[j] = FloatToBFloat16(0.5f + std::fabs(test::RandomNormal()));
      floats[j] = BFloat16ToFloat(bits[j]);
    }
  }
  test::Buffer<uint16_t> bits;
  test::Buffer<float> floats;
};

void TestQuantize(const Case& c, DType dtype, bool masked) {
  const int64_t groups = CeilDiv(c.k, c.group_size), zeros = c.codebook == Codebook::kUniform ? c.n * groups : 0;
  test::Buffer<uint8_t> weight(c.n * c.k * DTypeBytes(dtype)), codes(c.n * c.k), other_codes(c.n * c.k), zero(zeros), other_zero(zeros);
  test::Buffer<uint16_t> scale(c.n * groups), other_scale(c.n * groups);
  test::Buffer<bool> mask(c.n * c.k);
  for (int64_t i = 0; i < c.n * c.k; ++i) {
    const float value = i % 7 == 0 ? 0.25f * static_cast<float>(test::RandomInt(-9, 9)) : test::RandomNormal();
    StoreFloat(value, weight.data(), dtype, i);
    mask[i] = i >= c.k && test::RandomInt(0, 1) == 1;  // the first row is dead
  }
  Columns factors(c.k);
  cpu::DualShiftQuantizeArgs expected;
  expected.weight = weight.data(), expected.mask = masked ? mask.data() : nullptr;
  expected.column_scale = factors.floats.data();
  expected.k = c.k, expected.groups = groups, expected.group_size = c.group_size;
  expected.dtype = dtype, expected.bits = c.bits, expected.codebook = c.codebook;
  expected.codes = other_codes.data(), expected.scale = other_scale.data(), expected.zero = other_zero.data();
  test::Buffer<float> scratch(c.k + cpu::kQuantizeMargin);
  cpu::generic::DualShiftQuantize(expected, 0, c.n, scratch.data());
  cuda::DualShiftQuantizeArgs a;
  a.weight = weight.data(), a.mask = expected.mask, a.column_scale = factors.bits.data();
  a.n = c.n, a.k = c.k, a.group_size = c.group_size;
  a.dtype = dtype, a.bits = c.bits, a.codebook = c.codebook;
  a.codes = codes.data(), a.scale = scale.data(), a.zero = zero.data();
  PRISM_CHECK(cuda::DualShiftQuantize(a, nullptr) == cudaSuccess, "launch");
  CheckEqual(codes, other_codes, "codes", c);
  CheckEqual(scale, other_scale, "scale", c);
  CheckEqual(zero, other_zero, "zero", c);
}

void TestPack(const Case& c) {
  test::Buffer<uint8_t> codes(c.n * c.k), back(c.n * c.k);
  test::Buffer<uint8_t> packed(NumPanels(c.n) * PanelCodeBytes(c.k, c.bits)), expected(packed.size());
  for (int64_t i = 0; i < codes.size(); ++i) codes[i] = static_cast<uint8_t>(test::RandomInt(0, 255));
  cpu::DualShiftPackArgs a;
  a.codes = codes.data(), a.n = c.n, a.k = c.k, a.bits = c.bits, a.packed = expected.data();
  cpu::generic::DualShiftPack(a, 0, NumPanels(c.n));
  PRISM_CHECK(cuda::DualShiftPack(codes.data(), c.n, c.k, c.bits, packed.data(), nullptr) == cudaSuccess, "launch");
  CheckEqual(packed, expected, "packed", c);
  PRISM_CHECK(cuda::DualShiftUnpack(packed.data(), c.n, c.k, c.bits, back.data(), nullptr) == cudaSuccess, "launch");
  for (int64_t i = 0; i < codes.size(); ++i) codes[i] = static_cast<uint8_t>(codes[i] & ((1 << c.bits) - 1));
  CheckEqual(back, codes, "unpacked", c);
}

void TestDequantize(const Case& c) {
  const int64_t groups = CeilDiv(c.k, c.group_size), panels = NumPanels(c.n);
  test::Buffer<uint8_t> codes(panels * PanelCodeBytes(c.k, c.bits));
  test::Buffer<uint16_t> scale(panels * groups * kPanelRows);
  test::Buffer<uint8_t> zero(c.codebook == Codebook::kUniform ? panels * groups * ZeroBytes(c.bits) : 0);
  for (int64_t i = 0; i < codes.size(); ++i) codes[i] = static_cast<uint8_t>(test::RandomInt(0, 255));
  for (int64_t i = 0; i < scale.size(); ++i) scale[i] = FloatToBFloat16(std::exp(test::RandomNormal()));
  for (int64_t i = 0; i < zero.size(); ++i) zero[i] = static_cast<uint8_t>(test::RandomInt(0, 255));
  Columns columns(c.k);
  for (const DType dtype : {DType::kFloat32, DType::kFloat16, DType::kBFloat16}) {
    test::Buffer<uint8_t> weight(c.n * c.k * DTypeBytes(dtype)), expected(weight.size());
    cpu::DualShiftDequantizeArgs e;
    e.codes = codes.data(), e.scale = scale.data(), e.zero = zero.data(), e.column_scale = columns.floats.data();
    e.n = c.n, e.k = c.k, e.groups = groups, e.group_size = c.group_size;
    e.bits = c.bits, e.codebook = c.codebook, e.dtype = dtype, e.weight = expected.data();
    cpu::generic::DualShiftDequantize(e, 0, panels);
    cuda::DualShiftDequantizeArgs a;
    a.codes = codes.data(), a.scale = scale.data(), a.zero = zero.data(), a.column_scale = columns.bits.data();
    a.n = c.n, a.k = c.k, a.group_size = c.group_size;
    a.bits = c.bits, a.codebook = c.codebook, a.dtype = dtype, a.weight = weight.data();
    PRISM_CHECK(cuda::DualShiftDequantize(a, nullptr) == cudaSuccess, "launch");
    CheckEqual(weight, expected, "weight", c);
  }
}

}  // namespace

int main() {
  constexpr struct {
    int bits;
    Codebook codebook;
  } kCodes[] = {{2, Codebook::kUniform}, {3, Codebook::kUniform}, {4, Codebook::kUniform}, {5, Codebook::kUniform},
                {6, Codebook::kUniform}, {8, Codebook::kUniform}, {4, Codebook::kNf4},     {3, Codebook::kNf3}};
  // Every thread is a fiber with its own stack: blocks are what these tests cost.
  for (const auto& [bits, codebook] : kCodes) {
    TestDequantize({17, 72, 32, bits, codebook});
    TestDequantize({3, 31, 5, bits, codebook});
    TestPack({17, 72, 0, bits, codebook});
    TestPack({5, 31, 0, bits, codebook});
    TestQuantize({3, 72, 1000, bits, codebook}, DType::kFloat32, true);
    TestQuantize({5, 131, 48, bits, codebook}, DType::kFloat16, true);
    TestQuantize({3, 7, 1, bits, codebook}, DType::kBFloat16, false);
  }
  TestDequantize({33, 200, 1000, 4, Codebook::kUniform});
  TestPack({33, 130, 0, 4, Codebook::kUniform});
  TestDequantize({1, 1, 1, 4, Codebook::kUniform});
  TestPack({1, 1, 0, 4, Codebook::kUniform});
  return 0;
}
