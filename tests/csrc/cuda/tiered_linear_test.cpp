// tiered_linear and tiered_unpack on the device: random weights in exact-size buffers against the CPU's unpacked weight, also
// with maps and masks that promise more than is stored.
#include "cuda/tiered_linear.cuh"

#include <cmath>

#include "check.h"
#include "cpu/tiered_unpack.h"
#include "cuda/tiered_unpack.cuh"

using namespace prism;

namespace {

// Tiers of a map: all tiles of one tier, which for 2:4 and top-k keeps as many weights as theirs do, or a mixture whose masks
// keep any number.
enum Map { kDense, kSparse24, kTopK, kEmpty, kMixed };

struct Weight {
  // `stored`: tiles of a panel before the empty ones.
  Weight(int64_t n, int64_t k, DType dtype, bool shortened, Map map = kMixed, int64_t stored = INT64_MAX)
      : tiers(NumPanels(n) * cpu::NumTiles(k)), offsets(2 * (NumPanels(n) + 1)), masks(0), values(0) {
    std::vector<uint8_t> bits;
    int64_t kept = 0;
    offsets[0] = offsets[1] = 0;
    for (int64_t i = 0; i < tiers.size(); ++i) {
      tiers[i] = map == kMixed ? static_cast<uint8_t>(test::RandomInt(0, 3)) : static_cast<uint8_t>(map);
      if (i % cpu::NumTiles(k) >= stored) tiers[i] = kEmpty;
      kept += tiers[i] == cpu::kTierDense ? cpu::kTileSize : 0;
      if (tiers[i] == 1 || tiers[i] == 2) kept += AddMask(map, bits);
      if ((i + 1) % cpu::NumTiles(k) == 0) {
        const int64_t panel = (i + 1) / cpu::NumTiles(k);
        offsets[2 * panel] = shortened ? 0 : static_cast<int64_t>(bits.size()) / cpu::kTileMaskBytes;
        offsets[2 * panel + 1] = shortened ? 0 : kept;
      }
    }
    if (shortened) bits.resize(bits.size() / 64 * 32), kept /= 2;
    masks = test::Buffer<uint8_t>(static_cast<int64_t>(bits.size()));
    std::copy(bits.begin(), bits.end(), masks.data());
    values = test::Buffer<uint8_t>(kept * DTypeBytes(dtype));
    for (int64_t i = 0; i < kept; ++i) StoreFloat(test::RandomNormal(), values.data(), dtype, i);
    const int64_t num_masks = masks.size() / cpu::kTileMaskBytes;
    view = {tiers.data(), masks.data(), values.data(), offsets.data(), num_masks, kept, n, k, dtype};
    cpu_view = {tiers.data(), masks.data(), values.data(), offsets.data(), num_masks, kept, k, dtype};
  }

  // Appends the mask of a tile; returns how many weights it keeps.
  static int AddMask(Map map, std::vector<uint8_t>& bits) {
    const size_t begin = bits.size();
    bits.resize(begin + cpu::kTileMaskBytes);
    const auto keep = [&](int row, int column) {
      const int bit = 32 * (column / 2) + 2 * row + column % 2;
      bits[begin + static_cast<size_t>(bit / 8)] |= static_cast<uint8_t>(1 << bit % 8);
    };
    if (map == kSparse24) {
      for (int quad = 0; quad < 64; ++quad) {
        const int first = test::RandomInt(0, 2), second = test::RandomInt(first + 1, 3);
        for (const int column : {first, second}) keep(quad / 4, quad % 4 * 4 + column);
      }
    } else if (map == kTopK) {
      for (int i = 0; i < 10; ++i) keep(test::RandomInt(0, 15), test::RandomInt(0, 15));
    } else {
      for (size_t i = begin; i < bits.size(); ++i) bits[i] = static_cast<uint8_t>(test::RandomInt(0, 255) & test::RandomInt(0, 255));
    }
    int kept = 0;
    for (size_t i = begin; i < bits.size(); ++i) kept += __builtin_popcount(bits[i]);
    return kept;
  }

  test::Buffer<uint8_t> tiers;
  test::Buffer<int64_t> offsets;
  test::Buffer<uint8_t> masks, values;
  cuda::TieredBlocks view;
  cpu::TieredBlocks cpu_view;
};

test::Buffer<uint8_t> Unpack(Weight& weight) {
  const cuda::TieredBlocks& w = weight.view;
  test::Buffer<uint8_t> dense(w.n * w.k * DTypeBytes(w.dtype)), expected(dense.size());
  cpu::generic::TieredUnpack(weight.cpu_view, w.n, 0, NumPanels(w.n), expected.data());
  PRISM_CHECK(cuda::TieredUnpack(w, dense.data(), nullptr) == cudaSuccess, "launch");
  for (int64_t i = 0; i < dense.size(); ++i) {
    PRISM_CHECK(dense[i] == expected[i], "n=%ld k=%ld: byte %ld of the dense weight", w.n, w.k, i);
  }
  return dense;
}

void Multiply(Weight& weight, test::Buffer<uint8_t>& dense, int64_t m, DType dtype) {
  const cuda::TieredBlocks& w = weight.view;
  test::Buffer<uint8_t> x(m * w.k * DTypeBytes(dtype)), y(m * w.n * DTypeBytes(dtype)), bias(w.n * DTypeBytes(dtype));
  for (int64_t i = 0; i < m * w.k; ++i) StoreFloat(test::RandomNormal(), x.data(), dtype, i);
  for (int64_t i = 0; i < w.n; ++i) StoreFloat(test::RandomNormal(), bias.data(), dtype, i);
  cuda::TieredLinearArgs args = {x.data(), bias.data(), y.data(), m, dtype};
  test::Buffer<uint8_t> scratch(cuda::TieredLinearScratch(w, args) * DTypeBytes(dtype));
  args.scratch = scratch.data();
  PRISM_CHECK(cuda::TieredLinear(w, args, nullptr) == cudaSuccess, "launch");
  for (int64_t i = 0; i < m * w.n; ++i) {
    const int64_t token = i / w.n, row = i % w.n;
    double expected = static_cast<double>(LoadFloat(bias.data(), dtype, row)), scale = 1.0;
    for (int64_t j = 0; j < w.k; ++j) {
      const double term = static_cast<double>(LoadFloat(dense.data(), w.dtype, row * w.k + j)) *
                          static_cast<double>(LoadFloat(x.data(), dtype, token * w.k + j));
      expected += term;
      scale += std::abs(term);
    }
    const double actual = static_cast<double>(LoadFloat(y.data(), dtype, i)), rounding = dtype == DType::kFloat32 ? 0 : 0x1p-8;
    PRISM_CHECK(std::abs(actual - expected) <= 1e-5 * scale + rounding * std::abs(expected), "m=%ld n=%ld k=%ld token %ld row %ld: got %g, expected %g", m, w.n,
                w.k, token, row, actual, expected);
  }
}

}  // namespace

int main() {
  for (const bool shortened : {false, true}) {
    for (const auto& [n, k] : {std::pair<int64_t, int64_t>{1, 1}, {17, 33}, {33, 100}, {16, 1000}}) {
      for (const DType dtype : {DType::kFloat32, DType::kFloat16, DType::kBFloat16}) {
        if (k > 100 && dtype != DType::kBFloat16) continue;
        Weight weight(n, k, dtype, shortened);
        test::Buffer<uint8_t> dense = Unpack(weight);
        Multiply(weight, dense, 1, dtype);
        if (k == 33) Multiply(weight, dense, 2, DType::kFloat32);
        if (k == 100) Multiply(weight, dense, 11, dtype);
        if (k == 100 && dtype != DType::kFloat32) Multiply(weight, dense, 17, dtype);
      }
    }
  }
  for (const Map map : {kDense, kSparse24, kTopK, kEmpty}) {
    for (const auto& [n, k] : {std::pair<int64_t, int64_t>{17, 33}, {16, 336}, {19, 500}}) {
      for (const DType dtype : {DType::kFloat16, DType::kBFloat16}) {
        Weight weight(n, k, dtype, false, map);
        test::Buffer<uint8_t> dense = Unpack(weight);
        for (const int64_t m : {1, 9, 21}) Multiply(weight, dense, m, dtype);
      }
    }
  }
  // Shares that end everywhere in the segments of a copy, with little of the stream behind them.
  for (int64_t stored = 3; stored < 36; ++stored) {
    Weight weight(16, 16 * (stored + 60), DType::kBFloat16, false, kDense, stored);
    test::Buffer<uint8_t> dense = Unpack(weight);
    Multiply(weight, dense, 1, DType::kBFloat16);
  }
  Weight wide(3, 16 * 1024 + 40, DType::kBFloat16, false);  // more tiles than are found at once
  test::Buffer<uint8_t> dense = Unpack(wide);
  Multiply(wide, dense, 1, DType::kBFloat16);
  return 0;
}
