// dual_shift_linear against a double loop over the codes: every kind of code, both tensor-core arithmetics, few and many
// tokens, split k, and the plain kernel; rows, columns, tokens and groups with tails.
#include "cuda/dual_shift_linear.cuh"

#include "cpu/dual_shift_unpack.h"
#include "cuda/common/panel_codes.cuh"
#include "cuda/common/panel_mma_plan.cuh"
#include "cuda/quantize_activations.cuh"
#include "quad_linear_cases.h"

using namespace prism;

namespace {

float Rounded(float value, DType dtype) {
  if (dtype == DType::kBFloat16) return BFloat16ToFloat(FloatToBFloat16(value));
  return dtype == DType::kFloat16 ? Float16ToFloat(FloatToFloat16(value)) : value;
}

struct Case {
  int64_t m, n, k, group_size;
  int bits;
  Codebook codebook;
  DType dtype;
};

// What both sides of a case are made of.
struct Problem {
  explicit Problem(const Case& c)
      : packed(NumPanels(c.n) * PanelCodeBytes(c.k, c.bits)),
        codes(c.n * c.k),
        grid(c.n, c.k, c.group_size, c.bits, c.codebook),
        x(c.m * c.k * DTypeBytes(c.dtype)),
        column_scale(c.k),
        bias(c.n),
        y(c.m * c.n) {
    for (int64_t i = 0; i < packed.size(); ++i) packed[i] = static_cast<uint8_t>(test::RandomInt(0, 255));
    cpu::DualShiftUnpackArgs unpack;
    unpack.packed = packed.data();
    unpack.n = c.n, unpack.k = c.k, unpack.bits = c.bits, unpack.codes = codes.data();
    cpu::generic::DualShiftUnpack(unpack, 0, NumPanels(c.n));
    for (int64_t i = 0; i < c.m * c.k; ++i) StoreFloat(test::RandomNormal(), x.data(), c.dtype, i);
    for (int64_t j = 0; j < c.k; ++j) column_scale[j] = FloatToBFloat16(0.5f + std::fabs(test::RandomNormal()));
    for (int64_t i = 0; i < c.n; ++i) bias[i] = test::RandomNormal();
  }

  // (q - z) * s or level * s; tensor cores round levels to the dtype of x.
  double Weight(const Case& c, int64_t row, int64_t column, bool rounded) {
    const int64_t at = row / kPanelRows * grid.view.groups + column / c.group_size;
    const int code = codes[row * c.k + column];
    const float* levels = CodebookLevels(c.codebook);
    const double step = levels == nullptr ? code - cpu::ZeroPoint(grid.view, at, row % kPanelRows)
                        : rounded         ? Rounded(levels[code], c.dtype)
                                          : levels[code];
    return step * static_cast<double>(BFloat16ToFloat(grid.scale[at * kPanelRows + row % kPanelRows]));
  }

  test::Buffer<uint8_t> packed, codes;
  test::Grid grid;
  test::Buffer<uint8_t> x;
  test::Buffer<uint16_t> column_scale;
  test::Buffer<float> bias, y;
};

cuda::DualShiftLinearArgs ArgsOf(const Case& c, Problem& p) {
  cuda::DualShiftLinearArgs a;
  a.codes = p.packed.data();
  a.scale = p.grid.scale.data();
  a.zero = c.codebook == Codebook::kUniform ? p.grid.zero.data() : nullptr;
  a.bits = c.bits, a.codebook = c.codebook, a.group_size = c.group_size;
  a.x = p.x.data(), a.x_dtype = c.dtype;
  a.column_scale = p.column_scale.data();
  a.bias = p.bias.data();
  a.y = p.y.data(), a.y_dtype = DType::kFloat32;
  a.m = c.m, a.n = c.n, a.k = c.k;
  return a;
}

template <class Activation>
void Check(const Case& c, Problem& p, bool rounded_levels, Activation activation, const char* what) {
  for (int64_t t = 0; t < c.m; ++t) {
    for (int64_t row = 0; row < c.n; ++row) {
      double sum = static_cast<double>(p.bias[row]), magnitude = std::fabs(sum);
      for (int64_t j = 0; j < c.k; ++j) {
        const double product = p.Weight(c, row, j, rounded_levels) * activation(t, j);
        sum += product;
        magnitude += std::fabs(product);
      }
      const double got = static_cast<double>(p.y[t * c.n + row]);
      PRISM_CHECK(std::fabs(got - sum) <= 2e-6 * magnitude,
                  "%s m=%ld n=%ld k=%ld group=%ld bits=%d codebook=%d dtype=%d token %ld row %ld: %g, expected %g", what, c.m,
                  c.n, c.k, c.group_size, c.bits, static_cast<int>(c.codebook), static_cast<int>(c.dtype), t, row, got, sum);
    }
  }
}

void Test(const Case& c) {
  Problem p(c);
  cuda::DualShiftLinearArgs a = ArgsOf(c, p);
  test::Buffer<float> workspace(cuda::DualShiftLinearWorkspace(a));
  a.workspace = workspace.size() > 0 ? workspace.data() : nullptr;
  for (int64_t i = 0; i < p.y.size(); ++i) p.y[i] = NAN;
  PRISM_CHECK(cuda::DualShiftLinear(a, nullptr) == cudaSuccess, "launch");
  const bool tensor_cores = c.dtype != DType::kFloat32 && (c.group_size % 32 == 0 || c.group_size >= c.k);
  const auto scaled = [&](int64_t t, int64_t j) {
    const float value = LoadFloat(p.x.data(), c.dtype, t * c.k + j) * BFloat16ToFloat(p.column_scale[j]);
    return static_cast<double>(tensor_cores ? Rounded(value, c.dtype) : value);
  };
  Check(c, p, tensor_cores, scaled, "linear");
}

// activation_bits = 8: the whole numbers first, bit for bit, then the product.
void TestQuantized(const Case& c) {
  Problem p(c);
  for (int64_t j = 0; j < c.k && c.m > 1; ++j) StoreFloat(0.0f, p.x.data(), c.dtype, c.k + j);  // a token of zeros
  test::Buffer<uint16_t> whole(c.m * c.k);
  test::Buffer<float> token_scale(c.m);
  PRISM_CHECK(cuda::QuantizeActivations(p.x.data(), c.dtype, p.column_scale.data(), c.m, c.k, whole.data(), token_scale.data(),
                                        nullptr) == cudaSuccess, "launch");
  for (int64_t t = 0; t < c.m; ++t) {
    const auto scaled = [&](int64_t j) {
      return LoadFloat(p.x.data(), c.dtype, t * c.k + j) * BFloat16ToFloat(p.column_scale[j]);
    };
    float largest = 0.0f;
    for (int64_t j = 0; j < c.k; ++j) largest = std::max(largest, std::fabs(scaled(j)));
    const float scale = largest / 127.0f > 0.0f ? largest / 127.0f : 1.0f;
    PRISM_CHECK(token_scale[t] == scale, "token %ld", t);
    for (int64_t j = 0; j < c.k; ++j) {
      PRISM_CHECK(BFloat16ToFloat(whole[t * c.k + j]) == std::nearbyint(scaled(j) / scale), "token %ld column %ld", t, j);
    }
  }
  cuda::DualShiftLinearArgs a = ArgsOf(c, p);
  a.x = whole.data(), a.x_dtype = DType::kBFloat16;
  a.column_scale = nullptr;
  a.token_scale = token_scale.data();
  test::Buffer<float> workspace(cuda::DualShiftLinearWorkspace(a));
  a.workspace = workspace.size() > 0 ? workspace.data() : nullptr;
  PRISM_CHECK(cuda::DualShiftLinear(a, nullptr) == cudaSuccess, "launch");
  const auto activation = [&](int64_t t, int64_t j) {
    return static_cast<double>(token_scale[t]) * static_cast<double>(BFloat16ToFloat(whole[t * c.k + j]));
  };
  Check(c, p, true, activation, "quantized");
}

void TestReciprocal() {
  const auto check = [](int64_t block, int64_t length) {
    const uint64_t product = (2 * static_cast<uint64_t>(block) + 1) * cuda::GroupReciprocal(length);
    PRISM_CHECK(static_cast<int64_t>(product >> 32) == block / length, "%ld / %ld", block, length);
  };
  for (int64_t length = 1; length < 300; ++length) {
    for (int64_t block = 0; block < 1000; ++block) check(block, length);
    const int64_t last = (cuda::kGroupReciprocalLimit - 1) / length;
    for (int64_t block = last - last % length - 1; block <= last; ++block) check(block, length);
  }
  for (int64_t block = 0; block < 32768; ++block) check(block, 32767);
}

}  // namespace

int main() {
  TestReciprocal();
  constexpr DType kBf16 = DType::kBFloat16, kFp16 = DType::kFloat16, kFp32 = DType::kFloat32;
  constexpr struct {
    int bits;
    Codebook codebook;
  } kCodes[] = {{2, Codebook::kUniform}, {3, Codebook::kUniform}, {4, Codebook::kUniform}, {5, Codebook::kUniform},
                {6, Codebook::kUniform}, {8, Codebook::kUniform}, {4, Codebook::kNf4},     {3, Codebook::kNf3}};
  for (const auto& [bits, codebook] : kCodes) {
    for (const DType dtype : {kBf16, kFp16}) {
      for (const int64_t m : {1, 9}) Test({m, 17, 131, 32, bits, codebook, dtype});  // rows that are not aligned
      Test({5, 33, 328, 64, bits, codebook, dtype});
      Test({19, 40, 200, 64, bits, codebook, dtype});
    }
    Test({3, 18, 65, 5, bits, codebook, kFp32});
    Test({9, 17, 33, 64, bits, codebook, kFp32});
    if (codebook == Codebook::kUniform) TestQuantized({3, 17, 136, 64, bits, codebook, kFp32});
  }
  constexpr Codebook kUniform = Codebook::kUniform;
  for (const int64_t m : {1, 8, 16, 17, 65}) Test({m, 1, 1, 1, 4, kUniform, kBf16});
  Test({70, 300, 72, 4096, 4, kUniform, kBf16});   // two tiles of tokens, two sets of panels, one group
  Test({17, 20, 65, 32, 4, kUniform, kFp16});      // many tokens, rows that are not aligned
  Test({2, 33, 2120, 96, 4, kUniform, kBf16});     // all warps; groups that end inside their shares
  PRISM_CHECK(cuda::PanelLinearSplits(17, 20, 1100) > 1, "k is not split");
  Test({17, 20, 1100, 96, 4, kUniform, kBf16});
  Test({2, 18, 65, 48, 4, kUniform, kFp16});       // plain: groups of parts of blocks
  TestQuantized({18, 17, 200, 100, 5, kUniform, kBf16});
  return 0;
}
