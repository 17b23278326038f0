// dual_shift_quantize: codes, group scales and zero points of weight / column_scale; the arithmetic of
// csrc/common/grid.h, and of prism_kernels/reference/codebooks.py for levels, bit for bit.
#pragma once
#include <cstdint>

#include "../common/codebooks.h"
#include "../common/dtype.h"

namespace prism::cpu {

struct DualShiftQuantizeArgs {
  const void* weight = nullptr;         // [n, k] of dtype
  const bool* mask = nullptr;           // [n, k], true = kept; null keeps all
  const float* column_scale = nullptr;  // [k]
  int64_t k = 0, groups = 0, group_size = 0;
  DType dtype = DType::kFloat32;
  int bits = 0;
  Codebook codebook = Codebook::kUniform;
  uint8_t* codes = nullptr;   // [n, k]
  uint16_t* scale = nullptr;  // bfloat16 [n, groups]
  uint8_t* zero = nullptr;    // [n, groups]; untouched unless kUniform
};

inline constexpr int64_t kQuantizeMargin = 16;

// Rows [begin, end); scratch: k + kQuantizeMargin floats. A pruned weight is quantized as 0, whose code decodes to 0.
using DualShiftQuantizeFn = void (*)(const DualShiftQuantizeArgs& args, int64_t begin, int64_t end, float* scratch);
namespace generic {
void DualShiftQuantize(const DualShiftQuantizeArgs&, int64_t, int64_t, float*);
}
namespace avx2 {
void DualShiftQuantize(const DualShiftQuantizeArgs&, int64_t, int64_t, float*);
}
namespace avx512 {
void DualShiftQuantize(const DualShiftQuantizeArgs&, int64_t, int64_t, float*);
}
DualShiftQuantizeFn PickDualShiftQuantize();

// bfloat16 scale of a group of levels: the largest magnitude, made finite and normal.
uint16_t LevelScale(float largest);
// Half-way points between neighbouring levels: midpoints[i] between level i and i + 1; `last` fills up to 16 entries.
void LevelMidpoints(Codebook codebook, float last, float midpoints[16]);

}  // namespace prism::cpu
