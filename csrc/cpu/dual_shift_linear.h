// dual_shift_linear: y = x @ weight^T with weight = (q - z) * s * c, or level[q] * s * c, decoded on the fly.
// q: `bits`-wide codes; z, s: per (row, group of `group_size` columns); c: per column, multiplied into x beforehand.
// Accumulates in float32, group by group: (sum of (q - z) * x) * s. A weight with q = z contributes exactly 0.
#pragma once
#include <cstdint>

#include "../common/codebooks.h"
#include "../common/dtype.h"

namespace prism::cpu {

// How a kernel wants its activations. A block is lanes * columns_per_lane columns; lane i of a vector holds the columns
// i * columns_per_lane ... of the block, one (float32) or two (bfloat16 pairs) per step, so that shifting packed codes
// inside a lane lines them up with x. {1, 1} is the plain order.
struct DualShiftLayout {
  int lanes = 1;
  int columns_per_lane = 1;
  bool bfloat16 = false;
  int64_t BlockColumns() const { return int64_t{lanes} * columns_per_lane; }
};

struct DualShiftLinearArgs {
  const void* x = nullptr;               // [m, blocks, block], x * column_scale in the kernel's layout, 0 beyond k
  const float* x_sums = nullptr;         // [m, padded_groups], the sums of x over each group, 0 beyond the last
  int64_t padded_groups = 0;             // groups, rounded up to whole vectors
  const int32_t* first_group = nullptr;  // [blocks], the group of each block's first column
  const int32_t* lane_group = nullptr;   // [blocks, lanes], the group of each lane, counted from the block's first
  int64_t m = 0, n = 0, k = 0, blocks = 0;
  const uint8_t* codes = nullptr;   // [n, code_bytes]
  const uint16_t* scale = nullptr;  // bfloat16 [n, groups]
  const uint8_t* zero = nullptr;    // [n, zero_bytes], packed like codes; unused unless kUniform
  int64_t code_bytes = 0, zero_bytes = 0, groups = 0, group_size = 0;
  int bits = 0;
  Codebook codebook = Codebook::kUniform;
  float* y = nullptr;  // [m, n]
};

// Rows whose scales and zero points a SIMD kernel decodes at once.
inline constexpr int64_t kPanelRows = 16;

// One instruction set's kernel: rows [begin, end) of the weight for all m tokens; scratch: ScratchFloats() zeros.
struct DualShiftLinearKernel {
  void (*run)(const DualShiftLinearArgs& args, int64_t begin, int64_t end, float* scratch);
  int lanes;
  bool bfloat16;
};

namespace generic {
extern const DualShiftLinearKernel kDualShiftLinear;
}
namespace avx2 {
extern const DualShiftLinearKernel kDualShiftLinear;
}
namespace avx512 {
extern const DualShiftLinearKernel kDualShiftLinear;
}
namespace avx512_bf16 {
extern const DualShiftLinearKernel kDualShiftLinear;
}

// Columns that one 32-bit lane of packed codes covers: two codes per byte at 4 bits, otherwise codes widened to bytes.
constexpr int ColumnsPerLane(int bits) { return bits == 4 ? 8 : 4; }

// The SIMD kernels need a lane to lie in one group; other group sizes take the generic kernel. `group_size` <= k
// unless the whole row is one group.
const DualShiftLinearKernel* PickDualShiftLinear(DType x_dtype, int bits, int64_t group_size, int64_t k);

DualShiftLayout LayoutFor(const DualShiftLinearKernel& kernel, int bits);
int64_t ScratchFloats(const DualShiftLinearKernel& kernel, const DualShiftLinearArgs& args);

// Writes one token's activations, already float32 and scaled ([k]), in `layout` ([blocks, block]) to `out`, and the
// sums of what was written over each group to sums [groups]. Rounds x in place where the layout is bfloat16.
void ArrangeActivations(float* x, int64_t k, int64_t group_size, const DualShiftLayout& layout, void* out, float* sums);
// Fills first_group [blocks] and lane_group [blocks, lanes].
void ArrangeGroups(int64_t k, int64_t group_size, const DualShiftLayout& layout, int32_t* first_group,
                   int32_t* lane_group);

}  // namespace prism::cpu
