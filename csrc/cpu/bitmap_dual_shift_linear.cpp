#include "bitmap_dual_shift_linear.h"

#include <array>

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

void BitmapDualShiftLinear(const BitmapDualShift& w, const float* x, int64_t m, int64_t row_begin, int64_t row_end,
                           float* sums, int64_t n) {
  const int64_t columns = NumBlocks(w.k) * kBlock;
  std::vector<float> weight(static_cast<size_t>(columns));
  for (int64_t row = row_begin; row < row_end; ++row) {
    DecodeBitmapDualShiftRow(w, row, weight.data());
    for (int64_t t = 0; t < m; ++t) sums[t * n + row] = Dot(x + t * columns, weight.data(), columns);
  }
}

}  // namespace generic

BitmapDualShiftLinearFn<float> PickBitmapDualShiftLinear() {
  using Fn = BitmapDualShiftLinearFn<float>;
#if PRISM_X86
  return Pick<Fn>("bitmap_dual_shift_linear", {generic::BitmapDualShiftLinear, avx2::BitmapDualShiftLinear,
                                               avx512::BitmapDualShiftLinear, nullptr});
#else
  return Pick<Fn>("bitmap_dual_shift_linear", {generic::BitmapDualShiftLinear});
#endif
}

BitmapDualShiftLinearFn<uint16_t> PickBitmapDualShiftLinearSplit(const BitmapDualShift& w, DType x_dtype) {
#if PRISM_X86
  // 16 significant bits are too few for float32 activations, and levels have more than bf16 holds.
  if (ActiveIsa() == Isa::kAvx512Bf16 && x_dtype != DType::kFloat32 && w.levels == nullptr &&
      (w.GroupsAreBlocks() ? w.bits <= 5 : w.GroupsArePartsOfBlocks() && w.bits <= 4)) {
    RecordKernel("bitmap_dual_shift_linear", Isa::kAvx512Bf16);
    return avx512_bf16::BitmapDualShiftLinear;
  }
#endif
  (void)w, (void)x_dtype;
  return nullptr;
}

}  // namespace prism::cpu
