// obs_sweep on the device against the CPU kernel, bit for bit.
#include "cuda/obs_sweep.cuh"

#include "check.h"
#include "common/dtype.h"
#include "cpu/obs_sweep.h"

using namespace prism;

namespace {

struct Outputs {
  Outputs(int64_t n, int64_t b, int64_t groups)
      : compensated(n * b), error(n * b), kept(n * b), codes(n * b), scale(n * groups), zero(n * groups) {}
  test::Buffer<float> compensated, error;
  test::Buffer<uint8_t> kept, codes;
  test::Buffer<uint16_t> scale;
  test::Buffer<uint8_t> zero;
};

template <class T>
void CheckSame(test::Buffer<T>& actual, test::Buffer<T>& expected, const char* what, int64_t n, int64_t b) {
  for (int64_t i = 0; i < actual.size(); ++i) {
    PRISM_CHECK(actual[i] == expected[i], "%s of %ldx%ld, element %ld: %g, expected %g", what, n, b, i,
                static_cast<double>(actual[i]), static_cast<double>(expected[i]));
  }
}

struct Choice {
  bool mask;
  int64_t n_keep, m;
};

void Test(int64_t n, int64_t b, int64_t bits, int64_t group_size, Choice choice, bool column_scales) {
  const int64_t groups = bits > 0 ? (b + group_size - 1) / group_size : 0;
  test::Buffer<float> weight(n * b), factor(b * b), packed(cpu::PackedObsFactorSize(b)), columns(b);
  test::Buffer<uint8_t> mask(n * b);
  test::Buffer<uint16_t> column_scale(b);
  for (int64_t i = 0; i < n * b; ++i) {
    weight[i] = i % 11 == 0 ? 0.5f : test::RandomNormal();  // ties
    mask[i] = static_cast<uint8_t>(test::RandomInt(0, 1));
  }
  for (int64_t i = 0; i < b; ++i) {
    column_scale[i] = FloatToBFloat16(column_scales ? 0.5f + static_cast<float>(i % 7) : 1.0f);
    columns[i] = BFloat16ToFloat(column_scale[i]);
    for (int64_t j = 0; j < b; ++j) factor[i * b + j] = i == j ? 1.0f + 0.1f * static_cast<float>(i % 3) : j > i ? 0.1f * test::RandomNormal() : NAN;
  }
  cpu::PackObsFactor(factor.data(), b, packed.data());
  Outputs own(n, b, groups), expected(n, b, groups);
  const uint8_t* kept = choice.mask ? mask.data() : nullptr;
  cpu::generic::ObsSweep({weight.data(), packed.data(), kept, columns.data(), nullptr, nullptr, b, choice.n_keep, choice.m,
                          bits, group_size, groups, expected.compensated.data(), expected.error.data(), expected.kept.data(),
                          expected.codes.data(), expected.scale.data(), expected.zero.data()}, 0, n);
  test::Buffer<unsigned char> workspace(cuda::ObsSweepWorkspace(n, b));
  for (const bool given : {false, true}) {  // the grids found the first time are given the second
    if (given && bits == 0) continue;
    const cuda::ObsSweepArgs args = {
        weight.data(), factor.data(), reinterpret_cast<const bool*>(kept), column_scales ? column_scale.data() : nullptr,
        given ? expected.scale.data() : nullptr, given ? expected.zero.data() : nullptr, n, b, choice.n_keep, choice.m, bits,
        group_size, groups, own.compensated.data(), own.error.data(), reinterpret_cast<bool*>(own.kept.data()),
        own.codes.data(), own.scale.data(), own.zero.data(), workspace.data()};
    PRISM_CHECK(cuda::ObsSweep(args, nullptr) == cudaSuccess, "launch");
    CheckSame(own.compensated, expected.compensated, "compensated", n, b);
    CheckSame(own.error, expected.error, "error", n, b);
    CheckSame(own.kept, expected.kept, "kept", n, b);
    if (bits > 0) CheckSame(own.codes, expected.codes, "codes", n, b);
    CheckSame(own.scale, expected.scale, "scale", n, b);
    CheckSame(own.zero, expected.zero, "zero", n, b);
  }
}

}  // namespace

int main() {
  for (const Choice choice : {Choice{true, 0, 0}, {false, 0, 0}, {false, 2, 4}, {false, 3, 5}, {true, 1, 4}}) {
    for (const int64_t b : {1, 3, 8, 17, 65}) {
      Test(33, b, 0, 0, choice, false);
      Test(5, b, 4, 16, choice, true);
      Test(3, b, 3, 7, choice, false);
    }
  }
  Test(0, 8, 4, 8, {false, 2, 4}, false);
  Test(2, 700, 4, 64, {false, 2, 4}, true);  // past shared memory
  return 0;
}
