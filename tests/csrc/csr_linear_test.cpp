// Random CSR weights in exact-size buffers, also with columns out of range.
#include "cpu/csr_linear.h"

#include <cmath>

#include "check.h"
#include "cpu/csr_unpack.h"

using namespace prism;

int main() {
  test::ForEachIsa([] {
    for (const int64_t k : {1, 7, 33, 200}) {
      for (const DType dtype : {DType::kFloat32, DType::kFloat16, DType::kBFloat16}) {
        for (const bool wide : {false, true}) {
          const int64_t n = 7;
          test::Buffer<int32_t> narrow_offsets(n + 1);
          test::Buffer<int64_t> wide_offsets(n + 1);
          std::vector<int64_t> columns;
          for (int64_t row = 0; row < n; ++row) {
            narrow_offsets[row] = static_cast<int32_t>(wide_offsets[row] = static_cast<int64_t>(columns.size()));
            const int64_t density = row == 0 ? 0 : row == 1 ? 100 : test::RandomInt(0, 100);
            for (int64_t j = 0; j < k; ++j) {
              if (test::RandomInt(1, 100) <= density) columns.push_back(j);
            }
          }
          const auto kept = static_cast<int64_t>(columns.size());
          narrow_offsets[n] = static_cast<int32_t>(wide_offsets[n] = kept);
          test::Buffer<uint16_t> words(kept);
          test::Buffer<int32_t> dwords(kept);
          for (int64_t i = 0; i < kept; ++i) words[i] = static_cast<uint16_t>(dwords[i] = static_cast<int32_t>(columns[i]));
          test::Buffer<uint8_t> values(kept * DTypeBytes(dtype));
          for (int64_t i = 0; i < kept; ++i) StoreFloat(test::RandomNormal(), values.data(), dtype, i);
          const void* offsets = wide ? static_cast<void*>(wide_offsets.data()) : narrow_offsets.data();
          const cpu::CsrRows w{values.data(), wide ? static_cast<void*>(dwords.data()) : words.data(), offsets, k, dtype,
                               wide, wide};
          for (const bool valid : {true, false}) {
            for (int64_t i = 0; !valid && i < kept; ++i) words[i] = 0xffff, dwords[i] = -1;
            test::Buffer<uint8_t> dense(n * k * DTypeBytes(dtype));
            cpu::PickCsrUnpack()(w, 0, n, dense.data());
            for (const int64_t m : {1, 2, 17, 70}) {
              test::Buffer<float> x(m * k), y(m * n), bias(n);
              for (int64_t i = 0; i < x.size(); ++i) x[i] = test::RandomNormal();
              for (int64_t i = 0; i < n; ++i) bias[i] = test::RandomNormal();
              const cpu::CsrLinearKernel kernel = cpu::PickCsrLinear();
              test::Buffer<float> packed(cpu::CsrActivations(kernel, m, k));
              const int64_t groups = CeilDiv(m, kernel.lanes);
              cpu::PackCsrActivations(kernel, x.data(), DType::kFloat32, m, k, 0, groups, packed.data());
              kernel.run(w, {packed.data(), bias.data(), y.data(), m, n, DType::kFloat32}, 0, n);
              for (int64_t i = 0; valid && i < m * n; ++i) {
                double expected = bias[i % n];
                for (int64_t j = 0; j < k; ++j) {
                  expected += static_cast<double>(x[i / n * k + j]) * LoadFloat(dense.data(), dtype, i % n * k + j);
                }
                PRISM_CHECK(std::abs(y[i] - expected) <= 1e-4, "m=%ld k=%ld: got %g, expected %g", m, k, y[i], expected);
              }
            }
          }
        }
      }
    }
  });
  return 0;
}
