// sinkhorn on the device against the CPU kernel.
#include "cuda/sinkhorn.cuh"

#include <cmath>

#include "check.h"
#include "cpu/sinkhorn.h"

using namespace prism;

namespace {

const cpu::SinkhornParallelFor kSerial = [](int64_t count, const std::function<void(int64_t, int64_t)>& body) { body(0, count); };

struct Problem {
  int64_t batch, n, k;
  bool masked;
  float mean = 0.0f;
  float magnitude = 1.0f;
};

template <class T>
T Stored(float value) {
  if constexpr (sizeof(T) == 2) return FloatToBFloat16(value);
  return value;
}

void CheckNear(test::Buffer<float>& actual, test::Buffer<float>& expected, const char* what, const Problem& p, int variant) {
  for (int64_t i = 0; i < actual.size(); ++i) {
    PRISM_CHECK(std::fabs(actual[i] - expected[i]) <= 1e-4f * expected[i], "%s of %ldx%ldx%ld, variant %d, element %ld: %g, expected %g",
                what, p.batch, p.n, p.k, variant, i, static_cast<double>(actual[i]), static_cast<double>(expected[i]));
  }
}

template <class T>
void Test(const Problem& p, int variant, int64_t iterations) {
  const int64_t size = p.n * p.k;
  const DType dtype = sizeof(T) == 2 ? DType::kBFloat16 : DType::kFloat32;
  test::Buffer<T> weight(p.batch * size);
  test::Buffer<bool> mask(p.batch * size);
  for (int64_t i = 0; i < weight.size(); ++i) {
    const float uneven = 1.0f + static_cast<float>(i % p.k % 5) + static_cast<float>(i / p.k % 3);
    mask[i] = test::RandomInt(0, 3) > 0 && i / p.k % 7 != 3 && i % p.k != 2;  // dead rows and a dead column
    weight[i] = Stored<T>(mask[i] || !p.masked ? p.magnitude * (p.mean + uneven * test::RandomNormal()) : NAN);
  }
  test::Buffer<float> column(p.batch * p.k), row(p.batch * p.n), expected_column(column.size()), expected_row(row.size());
  test::Buffer<unsigned char> workspace(cuda::SinkhornWorkspace(dtype, p.masked, p.batch, p.n, p.k));
  const cuda::SinkhornArgs args = {weight.data(), dtype, p.masked ? mask.data() : nullptr, p.batch, p.n, p.k,
                                   static_cast<cuda::SinkhornVariant>(variant), iterations, column.data(), row.data(),
                                   workspace.data()};
  PRISM_CHECK(cuda::Sinkhorn(args, nullptr) == cudaSuccess, "launch");
  for (int64_t i = 0; i < p.batch; ++i) {
    const uint8_t* kept = p.masked ? reinterpret_cast<const uint8_t*>(mask.data()) + i * size : nullptr;
    cpu::Sinkhorn(*cpu::PickSinkhorn(dtype), {weight.data() + i * size, dtype, kept, p.n, p.k, expected_column.data() + i * p.k,
                  expected_row.data() + i * p.n}, static_cast<cpu::SinkhornVariant>(variant), iterations, kSerial);
  }
  CheckNear(column, expected_column, "columns", p, variant);
  CheckNear(row, expected_row, "rows", p, variant);
}

}  // namespace

int main() {
  const Problem problems[] = {{1, 1, 1, false}, {2, 3, 7, true}, {3, 40, 64, true}, {1, 35, 129, false}, {1, 37, 264, true},
                              {1, 9, 263, true, 3.0f}, {1, 20, 40, true, 3.0f, 1e-25f}, {1, 300, 8, true, 0.0f, 1e20f}};
  for (const Problem& problem : problems) {
    for (const int variant : {0, 1}) {
      Test<float>(problem, variant, 3);
      Test<uint16_t>(problem, variant, 2);
    }
    Test<float>(problem, 2, 0);
  }
  Test<uint16_t>({1, 5, 9, true}, 0, 0);
  Test<uint16_t>({1, 5, 4200, true}, 1, 1);  // two vectors per lane
  Test<uint16_t>({1, 4, 8200, true}, 1, 1);  // four
  Test<float>({1, 5, 8200, true}, 1, 1);     // windows
  return 0;
}
