// The dual-shift kernels on heap blocks of exactly their tensors' sizes: no byte beyond, and equal to the generic
// kernels, which equal arithmetic written by hand.
#include <algorithm>
#include <cmath>

#include "check.h"
#include "common/codebooks.h"
#include "cpu/dual_shift_dequantize.h"
#include "cpu/dual_shift_pack.h"
#include "cpu/dual_shift_quantize.h"
#include "cpu/dual_shift_unpack.h"

using namespace prism;

namespace {

constexpr int64_t kRows[] = {1, 5, 16, 23, 33};
constexpr int64_t kColumns[] = {1, 3, 7, 15, 16, 31, 32, 33, 63, 64, 65, 127, 129, 300};
constexpr int64_t kGroups[] = {64, 32, 48, 5, 1, 1000};

struct Grid {
  int bits;
  Codebook codebook;
};
constexpr Grid kGrids[] = {{2, Codebook::kUniform}, {3, Codebook::kUniform}, {4, Codebook::kUniform},
                           {5, Codebook::kUniform}, {6, Codebook::kUniform}, {8, Codebook::kUniform},
                           {4, Codebook::kNf4},     {3, Codebook::kNf3}};

template <class T>
void CheckEqual(test::Buffer<T>& actual, test::Buffer<T>& expected, const char* what, int64_t n, int64_t k, int bits,
                int64_t group) {
  for (int64_t i = 0; i < actual.size(); ++i) {
    PRISM_CHECK(actual[i] == expected[i], "%s: n=%ld k=%ld bits=%d group=%ld element %ld", what, n, k, bits, group, i);
  }
}

// One weight, quantized and packed by the active kernels, each checked against the generic one.
struct Problem {
  int64_t n, k, group_size, groups, panels;
  Grid grid;
  test::Buffer<float> column_scale;
  test::Buffer<uint8_t> codes, zero, packed, packed_zero;
  test::Buffer<uint16_t> scale, packed_scale;

  Problem(int64_t rows, int64_t columns, int64_t group, Grid g)
      : n(rows),
        k(columns),
        group_size(group),
        groups(CeilDiv(columns, group)),
        panels(NumPanels(rows)),
        grid(g),
        column_scale(std::max(k + cpu::kQuantizeMargin, NumBlocks32(k) * kBlockColumns)),
        codes(n * k),
        zero(HasZero() ? n * groups : 0),
        packed(panels * PanelCodeBytes(k, g.bits)),
        packed_zero(HasZero() ? panels * groups * ZeroBytes(g.bits) : 0),
        scale(n * groups),
        packed_scale(panels * groups * kPanelRows) {
    for (int64_t j = 0; j < column_scale.size(); ++j) {
      column_scale[j] = BFloat16ToFloat(FloatToBFloat16(0.5f + std::fabs(test::RandomNormal())));
    }
    Quantize();
    PackCodes();
    PackGrid();
  }

  bool HasZero() const { return grid.codebook == Codebook::kUniform; }

  void Quantize() {
    test::Buffer<float> weight(n * k), scratch(k + cpu::kQuantizeMargin);
    test::Buffer<bool> mask(n * k);
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
    cpu::generic::DualShiftQuantize(args, 0, n, scratch.data());
    args.codes = codes.data();
    args.scale = scale.data();
    args.zero = zero.data();
    cpu::PickDualShiftQuantize()(args, 0, n, scratch.data());
    CheckEqual(codes, other_codes, "codes", n, k, grid.bits, group_size);
    CheckEqual(scale, other_scale, "scale", n, k, grid.bits, group_size);
    CheckEqual(zero, other_zero, "zero", n, k, grid.bits, group_size);
  }

  void PackCodes() {
    test::Buffer<uint8_t> back(codes.size());
    cpu::DualShiftPackArgs pack;
    pack.codes = codes.data();
    pack.n = n;
    pack.k = k;
    pack.bits = grid.bits;
    pack.packed = packed.data();
    cpu::PickDualShiftPack()(pack, 0, panels);
    cpu::DualShiftUnpackArgs unpack;
    unpack.packed = packed.data();
    unpack.n = n;
    unpack.k = k;
    unpack.bits = grid.bits;
    unpack.codes = back.data();
    cpu::PickDualShiftUnpack()(unpack, 0, panels);
    CheckEqual(back, codes, "unpacked", n, k, grid.bits, group_size);
  }

  void PackGrid() {
    std::fill_n(packed_scale.data(), packed_scale.size(), uint16_t{0});
    std::fill_n(packed_zero.data(), packed_zero.size(), uint8_t{0});
    for (int64_t row = 0; row < n; ++row) {
      const int64_t r = row % kPanelRows;
      for (int64_t g = 0; g < groups; ++g) {
        const int64_t at = row / kPanelRows * groups + g;
        packed_scale[at * kPanelRows + r] = scale[row * groups + g];
        if (!HasZero()) continue;
        const uint8_t z = zero[row * groups + g];
        if (grid.bits > 4) {
          packed_zero[at * kPanelRows + r] = z;
        } else {
          packed_zero[at * 8 + r % 8] = static_cast<uint8_t>(packed_zero[at * 8 + r % 8] | (r < 8 ? z : z << 4));
        }
      }
    }
  }

  float Weight(int64_t row, int64_t column) {
    const int64_t at = row * groups + column / group_size;
    const int code = codes[row * k + column];
    const float step = HasZero() ? static_cast<float>(code - zero[at]) : CodebookLevels(grid.codebook)[code];
    return step * BFloat16ToFloat(scale[at]) * column_scale[column];
  }
};

void TestDequantize(Problem& p) {
  test::Buffer<float> factors(NumBlocks32(p.k) * kBlockColumns);  // exactly what the kernels may read
  std::copy_n(p.column_scale.data(), factors.size(), factors.data());
  for (const DType dtype : {DType::kFloat32, DType::kFloat16, DType::kBFloat16}) {
    const int64_t bytes = p.n * p.k * DTypeBytes(dtype);
    test::Buffer<uint8_t> actual(bytes), expected(bytes);
    for (int64_t row = 0; row < p.n; ++row) {
      for (int64_t j = 0; j < p.k; ++j) StoreFloat(p.Weight(row, j), expected.data(), dtype, row * p.k + j);
    }
    cpu::DualShiftDequantizeArgs args;
    args.codes = p.packed.data();
    args.scale = p.packed_scale.data();
    args.zero = p.packed_zero.data();
    args.column_scale = factors.data();
    args.n = p.n;
    args.k = p.k;
    args.groups = p.groups;
    args.group_size = p.group_size;
    args.bits = p.grid.bits;
    args.codebook = p.grid.codebook;
    args.dtype = dtype;
    args.weight = actual.data();
    cpu::PickDualShiftDequantize()(args, 0, p.panels);
    CheckEqual(actual, expected, "weight", p.n, p.k, p.grid.bits, p.group_size);
  }
}

}  // namespace

int main() {
  test::ForEachIsa([] {
    for (const int64_t n : kRows) {
      for (const int64_t k : kColumns) {
        for (const int64_t group : kGroups) {
          for (const Grid& grid : kGrids) {
            Problem problem(n, k, group, grid);
            TestDequantize(problem);
          }
        }
      }
    }
  });
  return 0;
}
