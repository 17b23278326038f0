#include "dual_shift_quantize.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "../common/grid.h"
#include "isa.h"

namespace prism::cpu {

uint16_t LevelScale(float largest) {
  constexpr float kLargest = 0x1.fep127f, kSmallestNormal = 0x1p-126f;  // of bfloat16
  const uint16_t scale = FloatToBFloat16(largest < kLargest ? largest : kLargest);
  return BFloat16ToFloat(scale) >= kSmallestNormal ? scale : FloatToBFloat16(1.0f);
}

void LevelMidpoints(Codebook codebook, float last, float midpoints[16]) {
  const float* levels = CodebookLevels(codebook);
  const int size = CodebookSize(codebook);
  for (int i = 0; i < 16; ++i) midpoints[i] = i + 1 < size ? (levels[i] + levels[i + 1]) / 2.0f : last;
}

namespace generic {
namespace {

void QuantizeUniform(const DualShiftQuantizeArgs& a, const float* values, int64_t length, int64_t group,
                     uint8_t* codes) {
  const float maxq = static_cast<float>((1 << a.bits) - 1);
  float low = 0.0f, high = 0.0f;
  for (int64_t j = 0; j < length; ++j) {
    low = std::min(low, values[j]);
    high = std::max(high, values[j]);
  }
  const Grid grid = FindGrid(low, high, maxq);
  a.scale[group] = grid.scale;
  a.zero[group] = grid.zero;
  for (int64_t j = 0; j < length; ++j) codes[j] = RoundToGrid(values[j], BFloat16ToFloat(grid.scale), grid.zero, maxq);
}

void QuantizeLevels(const DualShiftQuantizeArgs& a, const float* midpoints, const float* values, int64_t length,
                    int64_t group, uint8_t* codes) {
  float largest = 0.0f;
  for (int64_t j = 0; j < length; ++j) largest = std::max(largest, std::fabs(values[j]));
  a.scale[group] = LevelScale(largest);
  const float scale = BFloat16ToFloat(a.scale[group]);
  for (int64_t j = 0; j < length; ++j) {
    const float ratio = values[j] / scale;
    codes[j] =
        static_cast<uint8_t>(std::lower_bound(midpoints, midpoints + CodebookSize(a.codebook) - 1, ratio) - midpoints);
  }
}

}  // namespace

void DualShiftQuantize(const DualShiftQuantizeArgs& a, int64_t begin, int64_t end, float* values) {
  float midpoints[16] = {};
  if (a.codebook != Codebook::kUniform) LevelMidpoints(a.codebook, std::numeric_limits<float>::infinity(), midpoints);
  for (int64_t row = begin; row < end; ++row) {
    for (int64_t j = 0; j < a.k; ++j) {
      const bool kept = a.mask == nullptr || a.mask[row * a.k + j];
      values[j] = kept ? LoadFloat(a.weight, a.dtype, row * a.k + j) / a.column_scale[j] : 0.0f;
    }
    for (int64_t group = row * a.groups, first = 0; first < a.k; ++group, first += a.group_size) {
      const int64_t length = std::min(a.group_size, a.k - first);
      uint8_t* codes = a.codes + row * a.k + first;
      if (a.codebook == Codebook::kUniform) {
        QuantizeUniform(a, values + first, length, group, codes);
      } else {
        QuantizeLevels(a, midpoints, values + first, length, group, codes);
      }
    }
  }
}

}  // namespace generic

DualShiftQuantizeFn PickDualShiftQuantize() {
  using Fn = DualShiftQuantizeFn;
#if PRISM_X86
  return Pick<Fn>("dual_shift_quantize",
                  {generic::DualShiftQuantize, avx2::DualShiftQuantize, avx512::DualShiftQuantize, nullptr});
#else
  return Pick<Fn>("dual_shift_quantize", {generic::DualShiftQuantize});
#endif
}

}  // namespace prism::cpu
