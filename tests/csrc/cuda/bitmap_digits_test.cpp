// bitmap_dual_shift_linear of few tokens and 4-bit codes on the device (cuda/common/bitmap_digits.cuh) against sums in double:
// several panels to a block, shares of 0 to 4 chunks to a warp, panels of very unequal length, odd k, activations from
// tiny to infinite, and masks that promise more codes than are stored.
#include <cmath>
#include <limits>
#include <vector>

#include "check.h"
#include "cuda/bitmap_dual_shift_linear.cuh"
#include "cuda/common/bitmap_digits_linear.cuh"

using namespace prism;

namespace {

enum class Kept { kRandom, kNothing, kEverything, kOnePanel, kOneRow };

struct Case {
  int64_t n, m, k, group_size;
  DType dtype;
  Kept kept;
  float size = 1.0f;  // of activations
};

template <class T>
test::Buffer<T> BufferOf(const std::vector<T>& values) {
  test::Buffer<T> buffer(static_cast<int64_t>(values.size()));
  for (size_t i = 0; i < values.size(); ++i) buffer[static_cast<int64_t>(i)] = values[i];
  return buffer;
}

bool IsKept(const Case& c, int64_t row, int64_t density) {
  switch (c.kept) {
    case Kept::kNothing: return false;
    case Kept::kEverything: return true;
    case Kept::kOnePanel: return row / kPanelRows == 2;
    case Kept::kOneRow: return row == 35;
    default: return test::RandomInt(1, 100) <= density;
  }
}

// A random weight, packed, and q - z of every element, 0 where pruned.
struct Weight {
  explicit Weight(const Case& c)
      : groups(CeilDiv(c.k, c.group_size)), steps(static_cast<size_t>(c.n * c.k)), zero(NumPanels(c.n) * groups * 8), scale(NumPanels(c.n) * groups * kPanelRows) {
    for (int64_t i = 0; i < zero.size(); ++i) zero[i] = static_cast<uint8_t>(test::RandomInt(0, 255));
    for (int64_t i = 0; i < scale.size(); ++i) scale[i] = FloatToBFloat16(static_cast<float>(test::RandomInt(1, 999)) / 512);
    std::vector<int64_t> density(static_cast<size_t>(NumPanels(c.n) * kPanelRows));
    for (int64_t& of_row : density) of_row = test::RandomInt(0, 100);
    for (int64_t panel = 0; panel < NumPanels(c.n); ++panel) {
      offsets.push_back(static_cast<int64_t>(codes.size()));
      for (int64_t quad = 0; quad < NumQuads(c.k); ++quad) AddQuad(c, panel, quad, density);
    }
    offsets.push_back(static_cast<int64_t>(codes.size()));
  }

  void AddQuad(const Case& c, int64_t panel, int64_t quad, const std::vector<int64_t>& density) {
    uint64_t mask = 0;
    bool half = false;
    for (int bit = 0; bit < 64; ++bit) {
      const int64_t in_panel = bit / 4, row = panel * kPanelRows + in_panel, column = 4 * quad + kQuadOrder[bit % 4];
      if (row >= c.n || column >= c.k || !IsKept(c, row, density[static_cast<size_t>(row)])) continue;
      const auto code = static_cast<uint8_t>(test::RandomInt(0, 15));
      if (half) {
        codes.back() = static_cast<uint8_t>(codes.back() | code << 4);
      } else {
        codes.push_back(code);
      }
      half = !half;
      mask |= uint64_t{1} << bit;
      const int z = zero[(panel * groups + column / c.group_size) * 8 + in_panel % 8] >> (in_panel < 8 ? 0 : 4) & 15;
      steps[static_cast<size_t>(row * c.k + column)] = code - z;
    }
    for (int byte = 0; byte < 8; ++byte) bitmap.push_back(static_cast<uint8_t>(mask >> 8 * byte));
  }

  double Scale(int64_t row, int64_t group) {
    return static_cast<double>(BFloat16ToFloat(scale[(row / kPanelRows * groups + group) * kPanelRows + row % kPanelRows]));
  }

  int64_t groups;
  std::vector<int> steps;
  test::Buffer<uint8_t> zero;
  test::Buffer<uint16_t> scale;
  std::vector<uint8_t> bitmap, codes;
  std::vector<int64_t> offsets;
};

float Rounded(float value, DType dtype) {
  uint32_t bits = 0;
  StoreFloat(value, &bits, dtype, 0);
  return LoadFloat(&bits, dtype, 0);
}

struct Call {
  Call(const Case& c, Weight& weight)
      : bitmap(BufferOf(weight.bitmap)), codes(BufferOf(weight.codes)), offsets(BufferOf(weight.offsets)), column_scale(c.k), x(c.m * c.k * DTypeBytes(c.dtype)),
        bias(c.n * DTypeBytes(c.dtype)), y(c.m * c.n * DTypeBytes(c.dtype)) {
    for (int64_t i = 0; i < c.k; ++i) column_scale[i] = FloatToBFloat16(static_cast<float>(test::RandomInt(128, 512)) / 256);
    for (int64_t i = 0; i < c.m * c.k; ++i) StoreFloat(test::RandomNormal() * c.size, x.data(), c.dtype, i);
    for (int64_t i = 0; i < c.n; ++i) StoreFloat(test::RandomNormal() * c.size, bias.data(), c.dtype, i);
    args.x = x.data();
    args.bitmap = bitmap.data();
    args.codes = codes.data();
    args.panel_offsets = offsets.data();
    args.scale = weight.scale.data();
    args.zero = weight.zero.data();
    args.column_scale = column_scale.data();
    args.bias = bias.data();
    args.dtype = c.dtype;
    args.size = codes.size();
    args.m = c.m;
    args.n = c.n;
    args.k = c.k;
    args.group_size = c.group_size;
    args.groups = weight.groups;
    args.bits = 4;
    args.y = y.data();
  }

  void Run(const Case& c) {
    PRISM_CHECK(cuda::TakesBitmapDigits(c.m, c.k, c.group_size), "another kernel takes m=%ld k=%ld", c.m, c.k);
    PRISM_CHECK(cuda::BitmapDualShiftLinearScratchBytes(args) == 0, "scratch memory");
    PRISM_CHECK(cuda::BitmapDualShiftLinear(args, nullptr) == cudaSuccess, "launch");
  }

  test::Buffer<uint8_t> bitmap, codes;
  test::Buffer<int64_t> offsets;
  test::Buffer<uint16_t> column_scale;
  test::Buffer<uint8_t> x, bias, y;
  cuda::BitmapDualShiftLinearArgs args;
};

void Check(const Case& c) {
  Weight weight(c);
  Call call(c, weight);
  call.Run(c);
  const double rounding = c.dtype == DType::kBFloat16 ? 0x1p-8 : c.dtype == DType::kFloat16 ? 0x1p-11 : 0x1p-23;
  for (int64_t token = 0; token < c.m; ++token) {
    for (int64_t row = 0; row < c.n; ++row) {
      double sum = static_cast<double>(LoadFloat(call.bias.data(), c.dtype, row)), size = std::abs(sum);
      for (int64_t column = 0; column < c.k; ++column) {
        const float x = LoadFloat(call.x.data(), c.dtype, token * c.k + column) * BFloat16ToFloat(call.column_scale[column]);
        const double product = weight.steps[static_cast<size_t>(row * c.k + column)] * weight.Scale(row, column / c.group_size) * static_cast<double>(Rounded(x, c.dtype));
        sum += product;
        size += std::abs(product);
      }
      const double actual = static_cast<double>(LoadFloat(call.y.data(), c.dtype, token * c.n + row));
      const double limit = 1.01 * rounding * std::abs(sum) + 0x1p-20 * size;
      PRISM_CHECK(std::abs(actual - sum) <= limit, "n=%ld m=%ld k=%ld group %ld: token %ld row %ld: %g, expected %g", c.n, c.m, c.k, c.group_size, token, row, actual, sum);
    }
  }
}

// Of what is pruned nothing is left, not even a rounding error.
void TestPrunedIsZero() {
  const Case c{40, 2, 303, 64, DType::kFloat32, Kept::kOneRow};
  Weight weight(c);
  Call call(c, weight);
  call.args.bias = nullptr;
  call.Run(c);
  for (int64_t i = 0; i < c.m * c.n; ++i) {
    const float actual = LoadFloat(call.y.data(), c.dtype, i);
    PRISM_CHECK((actual == 0.0f) == (i % c.n != 35), "row %ld: %g", i % c.n, static_cast<double>(actual));
  }
}

// An activation that is not finite makes its token's outputs NaN, and no other's.
void TestNotFinite() {
  const float infinity = std::numeric_limits<float>::infinity();
  for (const float value : {infinity, -infinity, std::numeric_limits<float>::quiet_NaN()}) {
    const Case c{37, 2, 200, 64, DType::kBFloat16, Kept::kRandom};
    Weight weight(c);
    Call call(c, weight);
    StoreFloat(value, call.x.data(), c.dtype, c.k + 77);
    call.Run(c);
    for (int64_t i = 0; i < c.m * c.n; ++i) {
      PRISM_CHECK(std::isnan(LoadFloat(call.y.data(), c.dtype, i)) == (i >= c.n), "element %ld", i);
    }
  }
}

void TestPromises() {
  const Case c{70, 1, 2101, 128, DType::kBFloat16, Kept::kRandom};
  Weight weight(c);
  Call call(c, weight);
  for (int64_t i = 0; i < call.bitmap.size(); ++i) call.bitmap[i] = 0xff;
  call.Run(c);
  for (int64_t i = 0; i < call.offsets.size(); ++i) call.offsets[i] = i % 2 == 0 ? -1000000 : int64_t{1} << 40;
  call.Run(c);
}

}  // namespace

int main() {
  constexpr DType kFloat = DType::kFloat32, kHalf = DType::kFloat16, kBfloat = DType::kBFloat16;
  Check({37, 1, 5, 64, kBfloat, Kept::kEverything});
  Check({5, 3, 6, 128, kHalf, Kept::kEverything});
  Check({161, 1, 127, 64, kBfloat, Kept::kRandom});   // 11 panels for 3 blocks, one warp with a chunk
  Check({200, 2, 133, 64, kHalf, Kept::kRandom});
  Check({180, 4, 1000, 128, kBfloat, Kept::kRandom});
  Check({130, 3, 2112, 64, kFloat, Kept::kRandom});   // one or two chunks
  Check({100, 1, 4230, 128, kBfloat, Kept::kRandom});
  Check({70, 1, 6503, 64, kBfloat, Kept::kRandom});
  Check({150, 1, 2503, 64, kBfloat, Kept::kOnePanel});
  Check({150, 2, 501, 128, kBfloat, Kept::kOnePanel});
  Check({150, 1, 600, 64, kBfloat, Kept::kEverything});
  Check({150, 1, 600, 64, kHalf, Kept::kNothing});
  Check({40, 1, 261, 64, kBfloat, Kept::kRandom, 1e-30f});
  Check({40, 1, 261, 64, kFloat, Kept::kRandom, 1e-30f});
  Check({40, 1, 261, 64, kBfloat, Kept::kRandom, 1e34f});
  TestPrunedIsZero();
  TestNotFinite();
  TestPromises();
  return 0;
}
