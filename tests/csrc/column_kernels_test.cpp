// topk_mask, obs_sweep and sinkhorn on exact-size buffers: every instruction set against the generic kernels.
#include <cmath>

#include "check.h"
#include "cpu/obs_sweep.h"
#include "cpu/sinkhorn.h"
#include "cpu/topk_mask.h"

using namespace prism;

namespace {

const auto kSerial = [](int64_t count, const std::function<void(int64_t, int64_t)>& body) { body(0, count); };

void TestTopk() {
  for (const int64_t size : {1, 5, 16, 63, 513, 1025}) {
    for (const int64_t keep : {int64_t{0}, size / 2, size}) {
      test::Buffer<float> scores(size);
      for (int64_t i = 0; i < size; ++i) scores[i] = static_cast<float>(test::RandomInt(-3, 3));
      test::Buffer<bool> mask(size), expected(size);
      cpu::TopkMask(*cpu::PickTopkMask(), scores.data(), size, keep, kSerial, mask.data());
      cpu::TopkMask(cpu::generic::kTopkKernels, scores.data(), size, keep, kSerial, expected.data());
      int64_t kept = 0;
      for (int64_t i = 0; i < size; ++i) {
        kept += mask[i];
        PRISM_CHECK(mask[i] == expected[i], "topk_mask size %ld keep %ld element %ld", size, keep, i);
      }
      PRISM_CHECK(kept == keep, "topk_mask kept %ld of %ld", kept, keep);
    }
  }
}

struct Sweep {
  Sweep(int64_t n, int64_t b, int64_t groups)
      : compensated(n * b), error(n * b), kept(n * b), codes(n * b), scale(n * groups), zero(n * groups) {}
  test::Buffer<float> compensated, error;
  test::Buffer<uint8_t> kept, codes;
  test::Buffer<uint16_t> scale;
  test::Buffer<uint8_t> zero;
};

void TestSweep() {
  for (const int64_t b : {1, 3, 17, 64, 65}) {
    const int64_t n = 19, group_size = 16, groups = (b + group_size - 1) / group_size;
    test::Buffer<float> weight(n * b), factor(b * b), packed(cpu::PackedObsFactorSize(b)), column_scale(b);
    test::Buffer<uint8_t> mask(n * b);
    for (int64_t i = 0; i < weight.size(); ++i) weight[i] = test::RandomNormal();
    for (int64_t i = 0; i < mask.size(); ++i) mask[i] = static_cast<uint8_t>(test::RandomInt(0, 1));
    for (int64_t i = 0; i < b; ++i) {
      column_scale[i] = 1.0f;
      for (int64_t j = 0; j < b; ++j) factor[i * b + j] = i == j ? 1.0f : j > i ? 0.1f * test::RandomNormal() : 0.0f;
    }
    cpu::PackObsFactor(factor.data(), b, packed.data());
    for (const bool fixed_mask : {true, false}) {
      Sweep own(n, b, groups), expected(n, b, groups);
      for (Sweep* out : {&own, &expected}) {
        const cpu::ObsSweepProblem problem = {
            weight.data(), packed.data(), fixed_mask ? mask.data() : nullptr, column_scale.data(), nullptr, nullptr,
            b, 2, 4, 4, group_size, groups, out->compensated.data(), out->error.data(), out->kept.data(),
            out->codes.data(), out->scale.data(), out->zero.data()};
        (out == &own ? cpu::PickObsSweep() : cpu::generic::ObsSweep)(problem, 0, n);
      }
      for (int64_t i = 0; i < n * b; ++i) {
        PRISM_CHECK(own.compensated[i] == expected.compensated[i] && own.error[i] == expected.error[i], "obs_sweep b=%ld element %ld", b, i);
        PRISM_CHECK(own.kept[i] == expected.kept[i] && own.codes[i] == expected.codes[i], "obs_sweep b=%ld code %ld", b, i);
      }
    }
  }
}

void TestSinkhorn() {
  for (const auto& [n, k] : {std::pair<int64_t, int64_t>{1, 1}, {3, 7}, {17, 33}, {130, 65}, {9, 129}}) {
    test::Buffer<float> weight(n * k), column(k), row(n), expected_column(k), expected_row(n);
    test::Buffer<uint16_t> bfloat16(n * k);
    test::Buffer<uint8_t> mask(n * k);
    for (int64_t i = 0; i < n * k; ++i) {
      bfloat16[i] = FloatToBFloat16(test::RandomNormal());
      weight[i] = BFloat16ToFloat(bfloat16[i]);
      mask[i] = static_cast<uint8_t>(test::RandomInt(0, 3) > 0);
    }
    for (const auto variant : {cpu::SinkhornVariant::kSinq, cpu::SinkhornVariant::kPrism, cpu::SinkhornVariant::kRms}) {
      for (const uint8_t* chosen : {static_cast<const uint8_t*>(mask.data()), static_cast<const uint8_t*>(nullptr)}) {
        const cpu::SinkhornMatrix generic = {weight.data(), DType::kFloat32, chosen, n, k, expected_column.data(), expected_row.data()};
        cpu::Sinkhorn(cpu::generic::kSinkhornFloat32, generic, variant, 2, kSerial);
        const bool narrow = n % 2 != 0;  // the same numbers, stored in 16 bits
        const void* stored = narrow ? static_cast<const void*>(bfloat16.data()) : weight.data();
        const DType dtype = narrow ? DType::kBFloat16 : DType::kFloat32;
        cpu::Sinkhorn(*cpu::PickSinkhorn(dtype), {stored, dtype, chosen, n, k, column.data(), row.data()}, variant, 2, kSerial);
        for (int64_t j = 0; j < k; ++j) {
          PRISM_CHECK(std::fabs(column[j] - expected_column[j]) <= 1e-3f * expected_column[j], "sinkhorn %ldx%ld column %ld: %g, %g", n, k, j, column[j], expected_column[j]);
        }
      }
    }
  }
}

}  // namespace

int main() {
  test::ForEachIsa([] {
    TestTopk();
    TestSweep();
    TestSinkhorn();
  });
  return 0;
}
