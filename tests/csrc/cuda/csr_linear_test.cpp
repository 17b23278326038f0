// csr_linear and csr_unpack on the device: random weights in exact-size buffers against plain loops, and columns and offsets
// out of range, which must not leave the buffers.
#include "cuda/csr_linear.cuh"

#include <cmath>
#include <functional>

#include "check.h"
#include "cuda/csr_linear_tiles.cuh"
#include "cuda/csr_unpack.cuh"

using namespace prism;

namespace {

int64_t Mixed(int64_t row) { return row == 0 ? 0 : row == 1 ? 100 : test::RandomInt(0, 100); }

struct Weight {
  // Of each row `density(row)` percent.
  Weight(int64_t n, int64_t k, DType dtype, bool wide, const std::function<int64_t(int64_t)>& density = Mixed)
      : narrow_offsets(n + 1), wide_offsets(n + 1), dense(n * k * DTypeBytes(dtype)), words(0), dwords(0), values(0) {
    std::vector<int64_t> kept;
    for (int64_t row = 0; row < n; ++row) {
      narrow_offsets[row] = static_cast<int32_t>(wide_offsets[row] = static_cast<int64_t>(kept.size()));
      const int64_t percent = density(row);
      for (int64_t j = 0; j < k; ++j) {
        if (test::RandomInt(1, 100) <= percent) kept.push_back(row * k + j);
      }
    }
    const auto size = static_cast<int64_t>(kept.size());
    narrow_offsets[n] = static_cast<int32_t>(wide_offsets[n] = size);
    words = test::Buffer<uint16_t>(size), dwords = test::Buffer<int32_t>(size);
    values = test::Buffer<uint8_t>(size * DTypeBytes(dtype));
    std::fill(dense.data(), dense.data() + dense.size(), 0);
    for (int64_t i = 0; i < size; ++i) {
      words[i] = static_cast<uint16_t>(dwords[i] = static_cast<int32_t>(kept[i] % k));
      StoreFloat(test::RandomNormal(), values.data(), dtype, i);
      StoreFloat(LoadFloat(values.data(), dtype, i), dense.data(), dtype, kept[i]);
    }
    view = {values.data(), wide ? static_cast<void*>(dwords.data()) : words.data(),
            wide ? static_cast<void*>(wide_offsets.data()) : narrow_offsets.data(), size, n, k, dtype, wide, wide};
  }
  test::Buffer<int32_t> narrow_offsets;
  test::Buffer<int64_t> wide_offsets;
  test::Buffer<uint8_t> dense;
  test::Buffer<uint16_t> words;
  test::Buffer<int32_t> dwords;
  test::Buffer<uint8_t> values;
  cuda::CsrRows view;
};

void Multiply(Weight& weight, int64_t m, bool valid, DType dtype = DType::kFloat32, bool tiles = false, bool biased = true) {
  const cuda::CsrRows& w = weight.view;
  const int64_t bytes = DTypeBytes(dtype);
  test::Buffer<uint8_t> x(m * w.k * bytes), y(m * w.n * bytes), bias(w.n * bytes);
  for (int64_t i = 0; i < m * w.k; ++i) StoreFloat(test::RandomNormal(), x.data(), dtype, i);
  for (int64_t i = 0; i < w.n; ++i) StoreFloat(test::RandomNormal(), bias.data(), dtype, i);
  PRISM_CHECK(cuda::CsrTilesServe(w, m, dtype) == tiles, "m=%ld n=%ld k=%ld", m, w.n, w.k);
  test::Buffer<float> workspace(cuda::CsrLinearWorkspace(w, x.data(), m, dtype));
  const cuda::CsrLinearArgs args = {x.data(), biased ? bias.data() : nullptr, y.data(), m, dtype, workspace.data()};
  PRISM_CHECK(cuda::CsrLinear(w, args, nullptr) == cudaSuccess, "launch");
  const double rounding = dtype == DType::kFloat32 ? 0 : dtype == DType::kFloat16 ? 1.0 / 2048 : 1.0 / 256;
  for (int64_t i = 0; valid && i < m * w.n; ++i) {
    double expected = biased ? static_cast<double>(LoadFloat(bias.data(), dtype, i % w.n)) : 0.0;
    for (int64_t j = 0; j < w.k; ++j) {
      expected += static_cast<double>(LoadFloat(x.data(), dtype, i / w.n * w.k + j)) *
                  static_cast<double>(LoadFloat(weight.dense.data(), w.dtype, i % w.n * w.k + j));
    }
    const auto got = static_cast<double>(LoadFloat(y.data(), dtype, i));
    PRISM_CHECK(std::abs(got - expected) <= 1e-4 + rounding * std::abs(expected), "m=%ld n=%ld k=%ld, output %ld: got %g, expected %g",
                m, w.n, w.k, i, got, expected);
  }
}

// Two tokens and more in the dtype of the weight.
void Tiles() {
  for (const auto& [dtype, wide] : {std::pair{DType::kBFloat16, false}, {DType::kBFloat16, true}, {DType::kFloat16, false}}) {
    Weight small(7, 33, dtype, wide);
    for (const int64_t m : {2, 3, 17}) Multiply(small, m, true, dtype, true, m != 3);
    Weight tall(70, 200, dtype, wide);
    for (const int64_t m : {3, 17, 70}) Multiply(tall, m, true, dtype, true);
  }
  Weight filling(197, 139, DType::kFloat16, false);  // tiles of 32 rows for few tokens too
  for (const int64_t m : {3, 11}) Multiply(filling, m, true, DType::kFloat16, true);
  // A whole row among empty ones takes many windows of a chunk; chunks of 512, 384 and 128 columns.
  for (const int64_t percent : {0, 50, 100}) {
    Weight uneven(37, 1210, DType::kBFloat16, false, [&](int64_t row) { return row == 30 ? 100 : percent; });
    for (const int64_t m : {2, 17}) Multiply(uneven, m, true, DType::kBFloat16, true);
  }
  Weight sparse(40, 1000, DType::kBFloat16, false, [](int64_t row) { return row % 10 == 0 ? 3 : 0; });
  Multiply(sparse, 3, true, DType::kBFloat16, false);  // cheaper to gather
  Multiply(sparse, 70, true, DType::kBFloat16, true);
  Weight other(7, 33, DType::kFloat16, false);
  Multiply(other, 3, true, DType::kBFloat16, false);  // of two dtypes
  Weight long_rows(4, 70'000, DType::kFloat16, true, [](int64_t row) { return row == 0 ? 0 : 4; });
  Multiply(long_rows, 3, true, DType::kFloat16, true);
}

void Unpack(Weight& weight, bool valid) {
  const cuda::CsrRows& w = weight.view;
  test::Buffer<uint8_t> dense(w.n * w.k * DTypeBytes(w.dtype));
  PRISM_CHECK(cuda::CsrUnpack(w, dense.data(), nullptr) == cudaSuccess, "launch");
  for (int64_t i = 0; valid && i < dense.size(); ++i) {
    PRISM_CHECK(dense[i] == weight.dense[i], "k=%ld: byte %ld of the dense weight", w.k, i);
  }
}

}  // namespace

int main() {
  for (const auto& [dtype, wide] : {std::pair{DType::kFloat32, true}, {DType::kFloat16, false}, {DType::kBFloat16, false}}) {
    for (const int64_t k : {1, 33, 600}) {
      Weight weight(k == 600 ? 9 : 7, k, dtype, wide);
      Unpack(weight, true);
      for (const int64_t m : {1, 2, 10}) {
        if (k != 33 || m != 10) Multiply(weight, m, true);
      }
      if (k != 33) continue;
      for (int64_t i = 0; i < weight.words.size(); ++i) weight.words[i] = 0xffff, weight.dwords[i] = -1;
      weight.narrow_offsets[2] = 1 << 30, weight.wide_offsets[2] = int64_t{1} << 40;
      weight.narrow_offsets[4] = -5, weight.wide_offsets[4] = -5;
      Unpack(weight, false);
      for (const int64_t m : {1, 2}) Multiply(weight, m, false);
      if (dtype != DType::kFloat32) Multiply(weight, 9, false, dtype, true);
      for (int64_t i = 0; i < weight.words.size(); ++i) weight.words[i] = static_cast<uint16_t>(weight.dwords[i] = 3);
      if (dtype != DType::kFloat32) Multiply(weight, 9, false, dtype, true);
    }
  }
  Tiles();
  Weight no_columns(3, 0, DType::kFloat32, false);
  for (const int64_t m : {1, 2}) Multiply(no_columns, m, true);
  Weight no_columns16(3, 0, DType::kBFloat16, false);
  Multiply(no_columns16, 2, true, DType::kBFloat16, true);
  Weight long_rows(3, 60'000, DType::kBFloat16, false);  // x of one token is larger than shared memory
  Unpack(long_rows, true);
  return 0;
}
