// csr_linear and csr_unpack on the device: random weights in exact-size buffers against plain loops, and columns and offsets
// out of range, which must not leave the buffers.
#include "cuda/csr_linear.cuh"

#include <cmath>

#include "check.h"
#include "cuda/csr_unpack.cuh"

using namespace prism;

namespace {

struct Weight {
  Weight(int64_t n, int64_t k, DType dtype, bool wide)
      : narrow_offsets(n + 1), wide_offsets(n + 1), dense(n * k * DTypeBytes(dtype)), words(0), dwords(0), values(0) {
    std::vector<int64_t> kept;
    for (int64_t row = 0; row < n; ++row) {
      narrow_offsets[row] = static_cast<int32_t>(wide_offsets[row] = static_cast<int64_t>(kept.size()));
      const int64_t density = row == 0 ? 0 : row == 1 ? 100 : test::RandomInt(0, 100);
      for (int64_t j = 0; j < k; ++j) {
        if (test::RandomInt(1, 100) <= density) kept.push_back(row * k + j);
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

void Multiply(Weight& weight, int64_t m, bool valid) {
  const cuda::CsrRows& w = weight.view;
  test::Buffer<float> x(m * w.k), y(m * w.n), bias(w.n), workspace(cuda::CsrLinearWorkspace(m, w.k));
  for (int64_t i = 0; i < x.size(); ++i) x[i] = test::RandomNormal();
  for (int64_t i = 0; i < w.n; ++i) bias[i] = test::RandomNormal();
  const cuda::CsrLinearArgs args = {x.data(), bias.data(), y.data(), m, DType::kFloat32, workspace.data()};
  PRISM_CHECK(cuda::CsrLinear(w, args, nullptr) == cudaSuccess, "launch");
  for (int64_t i = 0; valid && i < m * w.n; ++i) {
    double expected = static_cast<double>(bias[i % w.n]);
    for (int64_t j = 0; j < w.k; ++j) {
      expected += static_cast<double>(x[i / w.n * w.k + j]) * static_cast<double>(LoadFloat(weight.dense.data(), w.dtype, i % w.n * w.k + j));
    }
    PRISM_CHECK(std::abs(static_cast<double>(y[i]) - expected) <= 1e-4, "m=%ld k=%ld: got %g, expected %g", m, w.k,
                static_cast<double>(y[i]), expected);
  }
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
    }
  }
  Weight no_columns(3, 0, DType::kFloat32, false);
  for (const int64_t m : {1, 2}) Multiply(no_columns, m, true);
  Weight long_rows(3, 60'000, DType::kBFloat16, false);  // x of one token is larger than shared memory
  Unpack(long_rows, true);
  return 0;
}
