#include "dual_shift_dequantize.h"

#include <algorithm>

#include "isa.h"

namespace prism::cpu {
namespace generic {

void DualShiftDequantize(const DualShiftDequantizeArgs& a, int64_t begin, int64_t end, uint8_t*) {
  const float* levels = CodebookLevels(a.codebook);
  for (int64_t row = begin; row < end; ++row) {
    const uint8_t* codes = a.codes + row * a.code_bytes;
    for (int64_t group = 0, first = 0; first < a.k; ++group, first += a.group_size) {
      const float scale = BFloat16ToFloat(a.scale[row * a.groups + group]);
      const int zero = levels != nullptr ? 0 : static_cast<int>(CodeAt(a.zero + row * a.zero_bytes, group, a.bits));
      const int64_t last = first + std::min(a.group_size, a.k - first);
      for (int64_t j = first; j < last; ++j) {
        const int code = static_cast<int>(CodeAt(codes, j, a.bits));
        const float step = levels != nullptr ? levels[code] : static_cast<float>(code - zero);
        StoreFloat(step * scale * a.column_scale[j], a.weight, a.dtype, row * a.k + j);
      }
    }
  }
}

}  // namespace generic

DualShiftDequantizeFn PickDualShiftDequantize() {
  using Fn = DualShiftDequantizeFn;
#if PRISM_X86
  return Pick<Fn>("dual_shift_dequantize",
                  {generic::DualShiftDequantize, avx2::DualShiftDequantize, avx512::DualShiftDequantize, nullptr});
#else
  return Pick<Fn>("dual_shift_dequantize", {generic::DualShiftDequantize});
#endif
}

}  // namespace prism::cpu
