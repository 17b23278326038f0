// topk_mask on the device against the CPU kernel: rows and whole matrices, many ties, none, and every special value.
#include "cuda/topk_mask.cuh"

#include <limits>

#include "check.h"
#include "common/dtype.h"
#include "cpu/topk_mask.h"

using namespace prism;

namespace {

void Fill(test::Buffer<float>& scores, int kind) {
  constexpr float kSpecial[] = {NAN, -INFINITY, INFINITY, -0.0f, 0.0f, 1e-45f};
  for (int64_t i = 0; i < scores.size(); ++i) {
    scores[i] = kind == 0 ? 0.0f : kind == 1 ? static_cast<float>(test::RandomInt(-2, 2)) : test::RandomNormal();
    if (kind == 1 && test::RandomInt(0, 9) == 0) scores[i] = kSpecial[test::RandomInt(0, 5)];
  }
}

// `keep` of each of `rows` runs of k scores.
void Test(int64_t rows, int64_t k, int64_t keep, int kind) {
  test::Buffer<float> scores(rows * k);
  Fill(scores, kind);
  test::Buffer<bool> mask(rows * k), expected(rows * k);
  const auto serial = [](int64_t count, const std::function<void(int64_t, int64_t)>& body) { body(0, count); };
  for (int64_t row = 0; row < rows; ++row) {
    cpu::TopkMask(cpu::generic::kTopkKernels, scores.data() + row * k, k, keep, serial, expected.data() + row * k);
  }
  const auto check = [&](const char* what) {
    for (int64_t i = 0; i < mask.size(); ++i) {
      PRISM_CHECK(mask[i] == expected[i], "%s %ldx%ld keep %ld kind %d: element %ld", what, rows, k, keep, kind, i);
    }
  };
  PRISM_CHECK(cuda::TopkMaskRows(scores.data(), rows, k, keep, mask.data(), nullptr) == cudaSuccess, "launch");
  check("rows");
  if (rows != 1) return;
  test::Buffer<uint64_t> workspace(CeilDiv(cuda::TopkMaskWorkspace(k), 8));
  for (int64_t i = 0; i < workspace.size(); ++i) workspace[i] = 0;
  for (int64_t i = 0; i < mask.size(); ++i) mask[i] = !expected[i];
  auto* bytes = reinterpret_cast<unsigned char*>(workspace.data());
  PRISM_CHECK(cuda::TopkMaskAll(scores.data(), k, keep, mask.data(), bytes, nullptr) == cudaSuccess, "launch");
  check("all");
}

}  // namespace

int main() {
  for (const int64_t k : {1, 3, 33, 257, 1009}) {
    for (int kind = 0; kind < 3; ++kind) {
      for (const int64_t keep : {int64_t{0}, int64_t{1}, k / 3, k - 1, k}) {
        Test(1, k, keep, kind);
        if (k < 100) Test(3, k, keep, kind);
      }
    }
  }
  Test(1, 70'001, 35'000, 1);  // three chunks, with ties that reach across them
  Test(1, 70'001, 20'011, 2);
  return 0;
}
