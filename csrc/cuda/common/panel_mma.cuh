// The shared skeleton of linears over panels of 16 rows on tensor cores: y[m, n] = x[m, k] @ weight[n, k]^T. A format brings
// a Source, which turns the stored bytes of one panel into tensor-core fragments; everything else is here and in
// panel_mma_few.cuh (m <= 16) and panel_mma_many.cuh (tiles of 64 tokens). panel_mma_launch.cuh chooses and launches.
//
// Fragments. The weight is operand A of m16n8k16, tokens are the columns of B. k is a dummy index, permuted alike in A and
// B: of a block of 32 columns, lane (g = lane / 4, t = lane % 4) takes columns 8t..8t+7, so that its B fragments of both
// k16 steps are one 16-byte read of x[token g]. Rows are permuted too: fragment row g is row 2g of the panel, fragment row
// g + 8 is row 2g + 1, so that a lane reads and writes neighbouring rows.
//   a[0] = {row 2g: columns (0, 1), row 2g + 1: (0, 1), row 2g: (2, 3), row 2g + 1: (2, 3)}   of the lane's eight columns
//   a[1] = the same of columns (4, 5) and (6, 7)
//
// A Source is a class that every lane of a warp holds (members are registers, the same calls are made by all 32 lanes):
//   using Args                     what the kernel gets by value: pointers and sizes, trivially copyable
//   struct Words                   what a lane loads for one block of 32 columns
//   static constexpr bool kScaled  whether float32 sums are multiplied by Scales() once per group of columns
//   static constexpr int kSharedBytes   shared memory of one Source, a multiple of 16; may be 0
//   static constexpr int kFewWarps      warps of a block at m <= 16: 16 where two Words and all else fit 128 registers, or 12
//   Source(const Args&, int64_t panel, int begin, int end, unsigned char* shared)
//       opens `panel` for the blocks [begin, end) of a split of k; begin < end, or the Source is never called
//   void Load(int block, Words&)            starts the loads of a block
//   Fragment Decode<Arithmetic>(int block, const Words&)
//   void Scales(const Words&, float (&)[2])     of rows 2g and 2g + 1, for the group of that block; only if kScaled
// Load is called for begin, begin + 1, ... up to end - 1, each once and in this order, Decode likewise, some blocks later:
// a Source of a variable-length stream advances its position in Load or in Decode, never both. Nothing else is promised
// about how calls interleave. Both may use warp collectives. The same panel may be opened by several warps, and two Sources
// of one warp may be the same panel (the last one, repeated), whose result is then dropped.
//
// A Fragment multiplies itself: Multiply<Arithmetic>(d, b), d the float32 sums of [16 rows, 8 tokens] and b the lane's
// four pairs of x. DenseFragment is the one described above.
//
// Where k is no multiple of 32 the caller pads x with zeros (PadActivations). Rows past n are computed and not stored.
#pragma once
#include "arithmetic.cuh"
#include "linear_output.cuh"

namespace prism::cuda {

struct DenseFragment {
  uint32_t a[2][4];

  template <class Arithmetic>
  __device__ void Multiply(float (&d)[4], const uint32_t (&b)[4]) const {
    Arithmetic::Multiply(d, a[0], {b[0], b[1]});
    Arithmetic::Multiply(d, a[1], {b[2], b[3]});
  }
};

struct PanelLinearArgs {
  const void* x = nullptr;                 // [m, k] of the arithmetic's dtype, rows aligned to 16 bytes
  const uint16_t* column_scale = nullptr;  // bfloat16 [k], aligned; x * column_scale is rounded to the dtype of x; null: 1
  LinearOutput out;                        // its partial: PartialFloats(splits, m, n), or null where k is not split
  int k = 0;             // a multiple of 32
  int group_blocks = 0;  // blocks of 32 columns that share a scale; 0: the whole row
  int splits = 1;        // set by the launch
};

// Panels that one warp multiplies together: they share its fragments of x.
inline constexpr int kPanelsPerWarp = 2;

// Sums of kPanelsPerWarp panels x kTiles * 8 tokens, in the layout of d. Where a Source has scales, `group` collects the
// current group and `total` the groups before it.
template <bool kScaled, int kTiles>
struct PanelSums {
  float group[kPanelsPerWarp][kTiles][4] = {};
  float total[kScaled ? kPanelsPerWarp : 1][kScaled ? kTiles : 1][4] = {};

  __device__ void CloseGroup(int panel, const float (&scale)[2]) {
    if constexpr (kScaled) {
#pragma unroll
      for (int j = 0; j < kTiles; ++j) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          total[panel][j][i] = __fmaf_rn(group[panel][j][i], scale[i / 2], total[panel][j][i]);
          group[panel][j][i] = 0.0f;
        }
      }
    }
  }

  __device__ const float (&Of(int panel, int tile) const)[4] {
    if constexpr (kScaled) return total[panel][tile];
    else return group[panel][tile];
  }
};

// Counts blocks down to the end of their group.
class GroupEnd {
 public:
  __device__ GroupEnd(int group_blocks, int begin, int end)
      : length_(group_blocks), left_(group_blocks - begin % group_blocks), end_(end) {}

  // Whether a group, or the split, ends with `block`; called once per block.
  __device__ bool At(int block) {
    const bool ends = --left_ == 0;
    if (ends) left_ = length_;
    return ends || block + 1 == end_;
  }

 private:
  const int length_;
  int left_;
  const int end_;
};

}  // namespace prism::cuda
