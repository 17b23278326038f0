#include "bitmap_linear.h"

#include <array>
#include <vector>

#include "isa.h"

namespace prism::cpu {
namespace generic {
namespace {

// Sixteen running sums in a fixed order, which compilers turn into vectors of any width.
float Dot(const float* x, const float* weight, int64_t count) {
  std::array<float, 16> sums{};
  for (int64_t j = 0; j < count; j += 16) {
    for (int lane = 0; lane < 16; ++lane) sums[lane] += x[j + lane] * weight[j + lane];
  }
  for (int width = 8; width > 0; width /= 2) {
    for (int lane = 0; lane < width; ++lane) sums[lane] += sums[lane + width];
  }
  return sums[0];
}

}  // namespace

void BitmapLinear(const BitmapValues& w, const float* x, int64_t m, int64_t row_begin, int64_t row_end, float* sums,
                  int64_t n) {
  const int64_t columns = NumBlocks(w.k) * kBlock;
  std::vector<float> weight(static_cast<size_t>(columns));
  for (int64_t row = row_begin; row < row_end; ++row) {
    std::fill(weight.begin(), weight.end(), 0.0f);
    ForEachKept(w, row, [&](int64_t j, int64_t i) { weight[j] = LoadFloat(w.values, w.dtype, i); });
    for (int64_t t = 0; t < m; ++t) sums[t * n + row] = Dot(x + t * columns, weight.data(), columns);
  }
}

}  // namespace generic

BitmapLinearFn<float> PickBitmapLinear() {
  using Fn = BitmapLinearFn<float>;
#if PRISM_X86
  return Pick<Fn>("bitmap_linear", {generic::BitmapLinear, avx2::BitmapLinear, avx512::BitmapLinear, nullptr});
#else
  return Pick<Fn>("bitmap_linear", {generic::BitmapLinear});
#endif
}

BitmapLinearFn<uint16_t> PickBitmapLinearBFloat16(const BitmapValues& w, DType x_dtype) {
#if PRISM_X86
  if (ActiveIsa() == Isa::kAvx512Bf16 && x_dtype == DType::kBFloat16 && w.dtype == DType::kBFloat16) {
    RecordKernel("bitmap_linear", Isa::kAvx512Bf16);
    return avx512_bf16::BitmapLinear;
  }
#endif
  (void)w, (void)x_dtype;
  return nullptr;
}

}  // namespace prism::cpu
