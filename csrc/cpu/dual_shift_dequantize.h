// dual_shift_dequantize: weight = (q - z) * s * c, or (level[q] * s) * c, in float32, rounded once to `dtype`.
//
// Lanes are rows: a block of 32 columns is decoded column by column for the 16 rows of a panel (two columns of 16-bit
// results to a lane), then transposed in registers and stored row by row.
#pragma once
#include <cstdint>

#include "../common/codebooks.h"
#include "../common/panels.h"

namespace prism::cpu {

struct DualShiftDequantizeArgs {
  const uint8_t* codes = nullptr;       // [panels, blocks, bits, 64]
  const uint16_t* scale = nullptr;      // bfloat16 [panels, groups, 16], finite
  const uint8_t* zero = nullptr;        // [panels, groups, ZeroBytes(bits)]; unused unless kUniform
  const float* column_scale = nullptr;  // [32 * blocks], what lies past k finite
  int64_t n = 0, k = 0, groups = 0, group_size = 0;
  int bits = 0;  // 8 goes with every codebook: a byte per code
  Codebook codebook = Codebook::kUniform;
  DType dtype = DType::kFloat32;
  void* weight = nullptr;  // [n, k] of dtype
};

using DualShiftDequantizeFn = void (*)(const DualShiftDequantizeArgs& args, int64_t begin_panel, int64_t end_panel);
namespace generic {
void DualShiftDequantize(const DualShiftDequantizeArgs&, int64_t, int64_t);
}
namespace avx2 {
void DualShiftDequantize(const DualShiftDequantizeArgs&, int64_t, int64_t);
}
namespace avx512 {
void DualShiftDequantize(const DualShiftDequantizeArgs&, int64_t, int64_t);
}
DualShiftDequantizeFn PickDualShiftDequantize();

}  // namespace prism::cpu
