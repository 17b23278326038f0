// Random weights in tiles in exact-size buffers, also with maps and masks that promise more than is stored.
#include "cpu/tiered_linear.h"

#include <cmath>

#include "check.h"
#include "cpu/tiered_unpack.h"

using namespace prism;

namespace {

struct Weight {
  Weight(int64_t n, int64_t k, DType dtype)
      : tiers(NumPanels(n) * cpu::NumTiles(k)), offsets(2 * (NumPanels(n) + 1)), masks(0), values(0) {
    std::vector<uint8_t> bits;
    int64_t kept = 0;
    offsets[0] = offsets[1] = 0;
    for (int64_t i = 0; i < tiers.size(); ++i) {
      tiers[i] = static_cast<uint8_t>(test::RandomInt(0, 3));
      kept += tiers[i] == cpu::kTierDense ? cpu::kTileSize : 0;
      for (int byte = 0; (tiers[i] == 1 || tiers[i] == 2) && byte < cpu::kTileMaskBytes; ++byte) {
        bits.push_back(static_cast<uint8_t>(test::RandomInt(0, 255) & test::RandomInt(0, 255)));
        kept += __builtin_popcount(bits.back());
      }
      if ((i + 1) % cpu::NumTiles(k) == 0) {
        const int64_t panel = (i + 1) / cpu::NumTiles(k);
        offsets[2 * panel] = static_cast<int64_t>(bits.size()) / cpu::kTileMaskBytes;
        offsets[2 * panel + 1] = kept;
      }
    }
    masks = test::Buffer<uint8_t>(static_cast<int64_t>(bits.size()));
    std::copy(bits.begin(), bits.end(), masks.data());
    values = test::Buffer<uint8_t>(kept * DTypeBytes(dtype));
    for (int64_t i = 0; i < kept; ++i) StoreFloat(test::RandomNormal(), values.data(), dtype, i);
    view = {tiers.data(), masks.data(), values.data(), offsets.data(), masks.size() / cpu::kTileMaskBytes, kept, k, dtype};
  }

  test::Buffer<uint8_t> tiers;
  test::Buffer<int64_t> offsets;
  test::Buffer<uint8_t> masks, values;
  cpu::TieredBlocks view{};
};

void Multiply(const cpu::TieredBlocks& w, int64_t n, int64_t m, DType dtype, bool compare) {
  test::Buffer<uint8_t> x(m * w.k * DTypeBytes(dtype)), bias(n * DTypeBytes(dtype)), y(m * n * DTypeBytes(dtype));
  for (int64_t i = 0; i < m * w.k; ++i) StoreFloat(test::RandomNormal(), x.data(), dtype, i);
  for (int64_t i = 0; i < n; ++i) StoreFloat(test::RandomNormal(), bias.data(), dtype, i);
  const cpu::TieredLinearKernel kernel = cpu::PickTieredLinear(w, dtype, m);
  test::Buffer<uint8_t> packed(cpu::ActivationBytes(kernel, m, w.k));
  const int64_t groups = cpu::TokenGroups(m, kernel.group_limit).count;
  cpu::PackActivations(kernel, x.data(), dtype, m, w.k, 0, groups, packed.data());
  kernel.run(w, {packed.data(), bias.data(), y.data(), m, n, dtype}, 0, NumPanels(n));
  if (!compare) return;
  test::Buffer<uint8_t> dense(n * w.k * DTypeBytes(w.dtype));
  cpu::PickTieredUnpack()(w, n, 0, NumPanels(n), dense.data());
  for (int64_t t = 0; t < m; ++t) {
    for (int64_t row = 0; row < n; ++row) {
      double expected = LoadFloat(bias.data(), dtype, row), scale = 1.0;
      for (int64_t j = 0; j < w.k; ++j) {
        const double term = static_cast<double>(LoadFloat(dense.data(), w.dtype, row * w.k + j)) *
                            LoadFloat(x.data(), dtype, t * w.k + j);
        expected += term;
        scale += std::abs(term);
      }
      const double actual = LoadFloat(y.data(), dtype, t * n + row), limit = dtype == DType::kFloat32 ? 1e-5 : 1e-2;
      PRISM_CHECK(std::abs(actual - expected) <= limit * scale, "m=%ld k=%ld: got %g, expected %g", m, w.k, actual, expected);
    }
  }
}

}  // namespace

int main() {
  test::ForEachIsa([] {
    for (const int64_t k : {1, 16, 33, 100, 272}) {
      for (const int64_t n : {1, 17, 48}) {
        for (const DType dtype : {DType::kFloat32, DType::kFloat16, DType::kBFloat16}) {
          Weight weight(n, k, dtype);
          for (const int64_t m : {1, 2, 5, 13, 25, 26}) {
            Multiply(weight.view, n, m, dtype, true);
            Multiply(weight.view, n, m, DType::kFloat32, true);
          }
          cpu::TieredBlocks less = weight.view;  // the same map over shorter streams
          test::Buffer<int64_t> offsets(weight.offsets.size());
          for (int64_t i = 0; i < offsets.size(); ++i) offsets[i] = 0;
          test::Buffer<uint8_t> short_masks(less.num_masks / 2 * cpu::kTileMaskBytes);
          test::Buffer<uint8_t> short_values(less.num_values / 2 * DTypeBytes(dtype));
          std::copy_n(weight.masks.data(), short_masks.size(), short_masks.data());
          std::copy_n(weight.values.data(), short_values.size(), short_values.data());
          less.masks = short_masks.data(), less.num_masks /= 2;
          less.values = short_values.data(), less.num_values /= 2;
          less.panel_offsets = offsets.data();
          test::Buffer<uint8_t> dense(n * k * DTypeBytes(dtype));
          cpu::PickTieredUnpack()(less, n, 0, NumPanels(n), dense.data());
          for (const int64_t m : {1, 26}) Multiply(less, n, m, dtype, false);
        }
      }
    }
  });
  return 0;
}
