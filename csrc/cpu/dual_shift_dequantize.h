// dual_shift_dequantize: weight = (q - z) * s * c, or (level[q] * s) * c, in float32, rounded once to `dtype`.
#pragma once
#include <cstdint>

#include "../common/codebooks.h"
#include "../common/dtype.h"

namespace prism::cpu {

struct DualShiftDequantizeArgs {
  const uint8_t* codes = nullptr;       // [n, code_bytes]
  const uint16_t* scale = nullptr;      // bfloat16 [n, groups]
  const uint8_t* zero = nullptr;        // [n, zero_bytes], packed like codes; unused unless kUniform
  const float* column_scale = nullptr;  // [k], readable kDequantizeMargin floats beyond
  int64_t k = 0, code_bytes = 0, zero_bytes = 0, groups = 0, group_size = 0;
  int bits = 0;
  Codebook codebook = Codebook::kUniform;
  DType dtype = DType::kFloat32;
  void* weight = nullptr;  // [n, k] of dtype
};

inline constexpr int64_t kDequantizeMargin = 64;

// Rows [begin, end); scratch: k + groups + 2 * kDequantizeMargin bytes.
using DualShiftDequantizeFn = void (*)(const DualShiftDequantizeArgs& args, int64_t begin, int64_t end,
                                       uint8_t* scratch);
namespace generic {
void DualShiftDequantize(const DualShiftDequantizeArgs&, int64_t, int64_t, uint8_t*);
}
namespace avx2 {
void DualShiftDequantize(const DualShiftDequantizeArgs&, int64_t, int64_t, uint8_t*);
}
namespace avx512 {
void DualShiftDequantize(const DualShiftDequantizeArgs&, int64_t, int64_t, uint8_t*);
}
DualShiftDequantizeFn PickDualShiftDequantize();

}  // namespace prism::cpu
