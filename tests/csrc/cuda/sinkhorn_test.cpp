// sinkhorn on the device against prism_kernels/reference/sinkhorn.py, written out in double.
#include "cuda/sinkhorn.cuh"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "check.h"

using namespace prism;

namespace {

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

// One matrix; the names are those of the Python reference.
struct Reference {
  int64_t n, k;
  std::vector<double> weight;
  std::vector<bool> mask;
  std::vector<double> column, row;

  // Standard deviation of column `i` (dim 0) or row `i` of the scaled matrix.
  double Std(int dim, int64_t i, int correction) const {
    double sum = 0.0, squares = 0.0;
    int64_t count = 0;
    ForKept(dim, i, [&](double value) { sum += value, ++count; });
    const double mean = sum / static_cast<double>(std::max<int64_t>(count, 1));
    ForKept(dim, i, [&](double value) { squares += (value - mean) * (value - mean); });
    return std::sqrt(squares / static_cast<double>(std::max<int64_t>(count - correction, 1)));
  }

  // How much a relative error of the entries of a line grows in its spread: two survivors may be nearly equal.
  double Condition(int dim, int64_t i) const {
    double squares = 0.0, count = 0.0;
    ForKept(dim, i, [&](double value) { squares += value * value, count += 1.0; });
    const double spread = Std(dim, i, 0);
    return spread > 0.0 ? std::max(std::sqrt(squares / count) / spread, 1.0) : 1.0;
  }

  template <class Body>
  void ForKept(int dim, int64_t i, const Body& body) const {
    for (int64_t l = 0; l < (dim == 0 ? n : k); ++l) {
      const int64_t r = dim == 0 ? l : i, c = dim == 0 ? i : l;
      if (mask[r * k + c]) body(weight[r * k + c] / (column[c] * row[r]));
    }
  }

  void Prism(int64_t iterations) {
    for (int64_t step = 0; step < 2 * iterations; ++step) {
      const int dim = step % 2 == 0 ? 1 : 0;
      std::vector<double>& factor = dim == 0 ? column : row;
      std::vector<double> moved = factor;
      for (size_t i = 0; i < factor.size(); ++i) {
        bool any = false;
        ForKept(dim, static_cast<int64_t>(i), [&](double) { any = true; });
        const double spread = std::max(Std(dim, static_cast<int64_t>(i), 0), 1e-4);
        if (any) moved[i] = std::exp(std::clamp(std::log(factor[i] * spread), -10.0, 10.0));
      }
      factor = moved;
    }
  }

  void Sinq(int64_t iterations) {
    std::vector<double> spread(k + n);
    std::vector<bool> live(k + n);
    for (int64_t i = 0; i < k + n; ++i) {
      double low = std::numeric_limits<double>::infinity(), high = -low;
      ForKept(i < k ? 0 : 1, i < k ? i : i - k, [&](double value) { low = std::min(low, value), high = std::max(high, value); });
      live[i] = high > low;
    }
    std::vector<double> best_column = column, best_row = row;
    double lowest = std::numeric_limits<double>::infinity(), target = 0.0;
    for (int64_t iteration = 0; iteration < iterations; ++iteration) {
      double least = std::numeric_limits<double>::infinity(), most = 0.0;
      for (int64_t i = 0; i < k + n; ++i) {
        spread[i] = Std(i < k ? 0 : 1, i < k ? i : i - k, 1);
        if (live[i]) least = std::min(least, spread[i]), most = std::max(most, spread[i]);
      }
      if (most == 0.0) return;
      if (iteration == 0) target = std::clamp(std::clamp(least, 1e-3, 1e3) + 1e-6, 1e-3, 1e3);
      const double imbalance = most / std::max(least, 1e-12);
      if (imbalance > lowest) break;
      lowest = imbalance, best_column = column, best_row = row;
      for (int64_t i = 0; i < k + n; ++i) {
        double& factor = i < k ? column[i] : row[i - k];
        const double step = std::clamp(std::clamp(spread[i], 1e-3, 1e3) / target, 0.7, 2.0);
        if (live[i]) factor = std::exp(std::clamp(std::log(factor * step), -0.3, 10.0));
      }
    }
    column = best_column, row = best_row;
  }

  void Rms() {
    double logarithms = 0.0, live = 0.0;
    for (int pass = 0; pass < 2; ++pass) {
      for (int64_t j = 0; j < k; ++j) {
        double squares = 0.0, count = 0.0;
        for (int64_t i = 0; i < n; ++i) {
          if (mask[i * k + j]) squares += weight[i * k + j] * weight[i * k + j], count += 1.0;
        }
        if (squares == 0.0) continue;
        const double root = std::sqrt(squares / count);
        if (pass == 0) logarithms += std::log(root), live += 1.0;
        if (pass == 1) column[j] = std::clamp(root / std::exp(logarithms / live), 0.1, 10.0);
      }
    }
  }
};

void CheckNear(const float* actual, const Reference& reference, int dim, const Problem& p, int variant) {
  const std::vector<double>& expected = dim == 0 ? reference.column : reference.row;
  for (size_t i = 0; i < expected.size(); ++i) {
    const double bound = 4e-6 * reference.Condition(dim, static_cast<int64_t>(i)) * expected[i];
    PRISM_CHECK(std::fabs(static_cast<double>(actual[i]) - expected[i]) <= bound,
                "%s of %ldx%ldx%ld, mean %g, variant %d, element %zu: %.9g, expected %.9g within %.2g", dim == 0 ? "columns" : "rows",
                p.batch, p.n, p.k, static_cast<double>(p.mean), variant, i, static_cast<double>(actual[i]), expected[i], bound);
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
    mask[i] = !p.masked || (test::RandomInt(0, 3) > 0 && i / p.k % 7 != 3 && i % p.k != 2);  // dead rows and a dead column
    weight[i] = Stored<T>(mask[i] ? p.magnitude * (p.mean + uneven * test::RandomNormal()) : NAN);
  }
  test::Buffer<float> column(p.batch * p.k), row(p.batch * p.n);
  test::Buffer<unsigned char> workspace(cuda::SinkhornWorkspace(dtype, p.masked, p.batch, p.n, p.k));
  const cuda::SinkhornArgs args = {weight.data(), dtype, p.masked ? mask.data() : nullptr, p.batch, p.n, p.k,
                                   static_cast<cuda::SinkhornVariant>(variant), iterations, column.data(), row.data(),
                                   workspace.data()};
  PRISM_CHECK(cuda::Sinkhorn(args, nullptr) == cudaSuccess, "launch");
  for (int64_t b = 0; b < p.batch; ++b) {
    Reference reference = {p.n, p.k, {}, {}, std::vector<double>(p.k, 1.0), std::vector<double>(p.n, 1.0)};
    for (int64_t i = b * size; i < (b + 1) * size; ++i) {
      reference.weight.push_back(static_cast<double>(LoadFloat(weight.data(), dtype, i)));
      reference.mask.push_back(mask[i]);
    }
    if (variant == 0) reference.Sinq(iterations);
    if (variant == 1) reference.Prism(iterations);
    if (variant == 2) reference.Rms();
    CheckNear(column.data() + b * p.k, reference, 0, p, variant);
    CheckNear(row.data() + b * p.n, reference, 1, p, variant);
  }
}

}  // namespace

int main() {
  const Problem problems[] = {{1, 1, 1, false}, {2, 3, 7, true}, {3, 40, 64, true}, {1, 35, 129, false}, {1, 37, 264, true},
                              {1, 9, 263, true, 3.0f}, {1, 9, 263, true, 10.0f}, {1, 30, 64, true, 30.0f},
                              {1, 2, 300, true, 30.0f}, {1, 20, 40, true, 3.0f, 1e-25f}, {1, 300, 8, true, 0.0f, 1e20f}};
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
