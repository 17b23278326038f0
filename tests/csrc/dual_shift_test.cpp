// The dual-shift kernels on heap blocks of exactly their tensors' sizes: no byte beyond, and equal to the generic
// kernels.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "check.h"
#include "common/codebooks.h"
#include "cpu/convert.h"
#include "cpu/dual_shift_dequantize.h"
#include "cpu/dual_shift_linear.h"
#include "cpu/dual_shift_quantize.h"
#include "cpu/pack_codes.h"
#include "cpu/unpack_codes.h"

using namespace prism;

namespace {

constexpr int64_t kRows = 5;
constexpr int64_t kColumns[] = {1, 3, 7, 8, 15, 16, 31, 33, 63, 64, 65, 127, 129, 256, 300};
constexpr int64_t kGroups[] = {64, 32, 8, 5, 1, 1000};

struct Grid {
  int bits;
  Codebook codebook;
};
constexpr Grid kGrids[] = {{2, Codebook::kUniform}, {3, Codebook::kUniform}, {4, Codebook::kUniform},
                           {5, Codebook::kUniform}, {6, Codebook::kUniform}, {8, Codebook::kUniform},
                           {4, Codebook::kNf4},     {3, Codebook::kNf3}};

template <class T>
void CheckEqual(test::Buffer<T>& actual, test::Buffer<T>& expected, const char* what, int64_t k, int bits,
                int64_t group) {
  for (int64_t i = 0; i < actual.size(); ++i) {
    PRISM_CHECK(actual[i] == expected[i], "%s: k=%ld bits=%d group=%ld element %ld", what, k, bits, group, i);
  }
}

// One weight, quantized and packed by the active kernels, each checked against the generic one.
struct Problem {
  int64_t k, group_size, groups;
  Grid grid;
  test::Buffer<float> column_scale;
  test::Buffer<uint8_t> codes, zero, packed, packed_zero;
  test::Buffer<uint16_t> scale;

  Problem(int64_t columns, int64_t group, Grid g)
      : k(columns),
        group_size(group),
        groups(CeilDiv(columns, group)),
        grid(g),
        column_scale(k + cpu::kDequantizeMargin),
        codes(kRows * k),
        zero(HasZero() ? kRows * groups : 0),
        packed(kRows * PackedBytes(k, g.bits)),
        packed_zero(HasZero() ? kRows * PackedBytes(groups, g.bits) : 0),
        scale(kRows * groups) {
    for (int64_t j = 0; j < column_scale.size(); ++j) {
      column_scale[j] = BFloat16ToFloat(FloatToBFloat16(0.5f + std::fabs(test::RandomNormal())));
    }
    Quantize();
    Pack(codes, k, packed);
    if (HasZero()) Pack(zero, groups, packed_zero);
  }

  bool HasZero() const { return grid.codebook == Codebook::kUniform; }

  void Quantize() {
    test::Buffer<float> weight(kRows * k), scratch(k + cpu::kQuantizeMargin);
    test::Buffer<bool> mask(kRows * k);
    for (int64_t i = 0; i < weight.size(); ++i) weight[i] = test::RandomNormal();
    for (int64_t i = 0; i < mask.size(); ++i) mask[i] = i >= k && test::RandomInt(0, 1) == 1;  // the first row is dead
    test::Buffer<uint8_t> other_codes(codes.size()), other_zero(zero.size());
    test::Buffer<uint16_t> other_scale(scale.size());
    cpu::DualShiftQuantizeArgs args;
    args.weight = weight.data();
    args.mask = mask.data();
    args.column_scale = column_scale.data();
    args.k = k;
    args.groups = groups;
    args.group_size = group_size;
    args.bits = grid.bits;
    args.codebook = grid.codebook;
    args.codes = other_codes.data();
    args.scale = other_scale.data();
    args.zero = other_zero.data();
    cpu::generic::DualShiftQuantize(args, 0, kRows, scratch.data());
    args.codes = codes.data();
    args.scale = scale.data();
    args.zero = zero.data();
    cpu::PickDualShiftQuantize()(args, 0, kRows, scratch.data());
    CheckEqual(codes, other_codes, "codes", k, grid.bits, group_size);
    CheckEqual(scale, other_scale, "scale", k, grid.bits, group_size);
    CheckEqual(zero, other_zero, "zero", k, grid.bits, group_size);
  }

  void Pack(test::Buffer<uint8_t>& values, int64_t count, test::Buffer<uint8_t>& stream) {
    test::Buffer<uint8_t> expected(stream.size()), back(values.size());
    cpu::PickPackCodes()(values.data(), kRows, count, grid.bits, stream.data());
    cpu::generic::PackCodes(values.data(), kRows, count, grid.bits, expected.data());
    CheckEqual(stream, expected, "packed", count, grid.bits, group_size);
    cpu::PickUnpackCodes()(stream.data(), kRows, count, grid.bits, back.data());
    CheckEqual(back, values, "unpacked", count, grid.bits, group_size);
  }
};

void TestDequantize(Problem& p) {
  for (const DType dtype : {DType::kFloat32, DType::kFloat16, DType::kBFloat16}) {
    const int64_t bytes = kRows * p.k * DTypeBytes(dtype);
    test::Buffer<uint8_t> actual(bytes), expected(bytes), scratch(p.k + p.groups + 2 * cpu::kDequantizeMargin);
    cpu::DualShiftDequantizeArgs args;
    args.codes = p.packed.data();
    args.scale = p.scale.data();
    args.zero = p.packed_zero.data();
    args.column_scale = p.column_scale.data();
    args.k = p.k;
    args.code_bytes = PackedBytes(p.k, p.grid.bits);
    args.zero_bytes = PackedBytes(p.groups, p.grid.bits);
    args.groups = p.groups;
    args.group_size = p.group_size;
    args.bits = p.grid.bits;
    args.codebook = p.grid.codebook;
    args.dtype = dtype;
    args.weight = actual.data();
    cpu::PickDualShiftDequantize()(args, 0, kRows, scratch.data());
    args.weight = expected.data();
    cpu::generic::DualShiftDequantize(args, 0, kRows, scratch.data());
    CheckEqual(actual, expected, "weight", p.k, p.grid.bits, p.group_size);
  }
}

// y [m, kRows] of one kernel, from x scaled, arranged and summed as the binding does.
test::Buffer<float> Linear(Problem& p, const cpu::DualShiftLinearKernel& kernel, test::Buffer<float>& x, int64_t m) {
  const cpu::DualShiftLayout layout = cpu::LayoutFor(kernel, p.grid.bits);
  cpu::DualShiftLinearArgs args;
  args.m = m;
  args.n = kRows;
  args.k = p.k;
  args.blocks = CeilDiv(p.k, layout.BlockColumns());
  args.groups = p.groups;
  args.padded_groups = CeilDiv(p.groups, layout.lanes) * layout.lanes;
  args.group_size = p.group_size;
  args.bits = p.grid.bits;
  args.codebook = p.grid.codebook;
  args.codes = p.packed.data();
  args.scale = p.scale.data();
  args.zero = p.packed_zero.data();
  args.code_bytes = PackedBytes(p.k, p.grid.bits);
  args.zero_bytes = PackedBytes(p.groups, p.grid.bits);
  const int64_t token_bytes = args.blocks * layout.BlockColumns() * (layout.bfloat16 ? 2 : 4);
  test::Buffer<uint8_t> arranged(m * token_bytes);
  test::Buffer<float> sums(m * args.padded_groups), scratch(cpu::ScratchFloats(kernel, args)), y(m * kRows);
  std::fill_n(sums.data(), sums.size(), 0.0f);
  std::fill_n(scratch.data(), scratch.size(), 0.0f);
  test::Buffer<int32_t> first(args.blocks), lanes(args.blocks * layout.lanes);
  cpu::ArrangeGroups(p.k, p.group_size, layout, first.data(), lanes.data());
  for (int64_t t = 0; t < m; ++t) {
    test::Buffer<float> token(p.k);
    cpu::ScaleRowsToFloat(x.data() + t * p.k, DType::kFloat32, 1, p.k, p.column_scale.data(), token.data());
    cpu::ArrangeActivations(token.data(), p.k, p.group_size, layout, arranged.data() + t * token_bytes,
                            sums.data() + t * args.padded_groups);
  }
  args.x = arranged.data();
  args.x_sums = sums.data();
  args.first_group = first.data();
  args.lane_group = lanes.data();
  args.y = y.data();
  kernel.run(args, 0, kRows, scratch.data());
  return y;
}

void TestLinear(Problem& p) {
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    for (const int64_t m : {1, 2, 3, 7}) {
      test::Buffer<float> x(m * p.k);
      for (int64_t i = 0; i < x.size(); ++i) x[i] = test::RandomNormal();
      const cpu::DualShiftLinearKernel& kernel = *cpu::PickDualShiftLinear(dtype, p.grid.bits, p.group_size, p.k);
      test::Buffer<float> actual = Linear(p, kernel, x, m);
      test::Buffer<float> expected = Linear(p, cpu::generic::kDualShiftLinear, x, m);
      const float limit = (kernel.bfloat16 ? 0.05f : 1e-5f) * std::sqrt(static_cast<float>(p.k)) * 4.0f;
      for (int64_t i = 0; i < actual.size(); ++i) {
        PRISM_CHECK(std::fabs(actual[i] - expected[i]) <= limit,
                    "linear: k=%ld bits=%d group=%ld m=%ld element %ld: %g, expected %g", p.k, p.grid.bits,
                    p.group_size, m, i, static_cast<double>(actual[i]), static_cast<double>(expected[i]));
      }
    }
  }
}

}  // namespace

int main() {
  test::ForEachIsa([] {
    for (const int64_t k : kColumns) {
      for (const int64_t group : kGroups) {
        for (const Grid& grid : kGrids) {
          Problem problem(k, group, grid);
          TestDequantize(problem);
          TestLinear(problem);
        }
      }
    }
  });
  return 0;
}
