// Few tokens times 4-bit uniform codes behind a bitmap, on the integer tensor cores. Bytes need no conversion: a quad of a row
// is one byte permutation of its survivors and one register of operand A of mma.m16n8k32.
//
// An activation x c (rounded to the dtype of x) is written in fixed point, 30 bits below the largest of a warp's share of the
// token, as four signed digits of base 256: columns of operand B, four to a token. Sums of digits times codes are exact int32,
// group by group; a pruned weight has the code of the zero point, and what zero points add is taken off exactly: z times the
// sum of the group's digits, which is where an accumulator begins. So a pruned weight adds exactly 0. Above it lies 1.5 * 2^23
// as a float, which turns the sum into one without a conversion. Activations are off by at most 2^-31 of the largest,
// or by 2^-127 where that is more; infinities and NaN make the token's outputs NaN.
//
// What a lane needs of a quad: byte g of its mask is rows 2g and 2g + 1 (fragment rows g and g + 8), its survivors at most 8
// neighbouring codes, a window of 32 bits. By that byte a table has the two selectors of the permutations of (window, window >> 4),
// whose last byte is below 16: its sign, 0, is what pruned weights take, and a 1 for every nibble of row 2g: the window is
// xor-ed with the rows' zero points, the bytes are xor-ed back, so a 0 becomes the zero point. The table is repeated for each
// of 16 lanes, so that lookups meet no bank twice.
//
// A block takes neighbouring panels one after another; its 16 warps split k, digits of a warp's share stay in shared memory.
// Where a warp's share of a panel begins is the sum of the sizes of the shares before it, summed up from the masks while the
// third panel before it is multiplied; then the share's survivors are asked for in the second-level cache, and copied from there
// asynchronously, a chunk of 64 quads ahead.
// A position costs the same whatever its mask: blocks of equal numbers of panels are equal work, also where one panel holds all
// the survivors.
//
// Bound: instructions. Counted in the code of sm_90 at half of the weights and 1 token, a chunk of 4096 positions costs a warp 589 (groups of
// 64 columns; 561 of 128): 4.6 (4.4) lane-instructions a position, 2.2 of them on the integer pipe, which takes one every two
// cycles; the bandwidth of an H200 leaves time for 3.1. Of the 4.6, 2.5 expand codes (19 for 8 positions, 1 product for 512), 0.5
// are per group, 1.6 find, copy and read ahead. A panel costs a warp 134 more: 1.05 a position of 4096 columns, 0.3 of 14336.
#pragma once
#include "bitmap_expand.cuh"
#include "bitmap_sources.cuh"

namespace prism::cuda {

struct BitmapDigitsArgs {
  const uint8_t* bitmap;         // [panels, quads, 8], aligned to 16 bytes; an even number of quads
  const uint8_t* codes;          // [size]
  const int64_t* panel_offsets;  // [panels + 1]
  const uint16_t* scale;         // bfloat16 [panels, groups, 16], aligned to 4 bytes
  const uint8_t* zero;           // [panels, groups, 8], aligned to 2 bytes
  const uint16_t* column_scale;  // bfloat16 [k]
  const void* x;                 // [m, k] of dtype
  const void* bias;              // [n] of dtype, or null
  void* y;                       // [m, n] of dtype
  DType dtype;
  int64_t size, n, k;
  int m, groups;
};

inline constexpr int kDigits = 4, kDigitWarps = 16, kDigitThreads = 32 * kDigitWarps, kDigitStages = 2;
inline constexpr int kPartColumns = 128, kPartQuads = kPartColumns / 4;  // what a warp's share is counted in; two make a chunk
inline constexpr int kMostDigitTokens = 4;
inline constexpr int kDigitAhead = 2;                  // panels whose shares' begins are known beyond the one that is multiplied

// Where things lie in shared memory, in bytes. Tokens are 1, 2 or 4, those past m are 0.
template <int kGroup, int kTokens>
struct DigitsLayout {
  static constexpr int kTiles = kTokens <= 2 ? 1 : 2, kGroupSumBytes = kTiles * 8 * 4;
  static constexpr int kDigitBytes = 64 * kDigits * kTokens;  // of 64 columns
  static constexpr int kCopies = kTokens <= 2 ? 16 : 8, kEntries = 256 * kCopies * kEntryBytes;  // of the table; 8 copies cost a cycle
  static constexpr int kGrid = 32 * kPartQuads, kData = kGrid + 32 * 32, kMostBytes = 64 * kPartQuads, kStage = kData + kMostBytes + 48;
  static constexpr int kRing = kEntries, kSizes = kRing + kDigitWarps * kDigitStages * kStage;
  static constexpr int kPanelSums = kDigitWarps * kTokens * static_cast<int>(kPanelRows) * 4;
  static constexpr int kSums = kSizes + 4 * kDigitWarps * 4;  // sizes are of four panels in turn, sums of two
  static constexpr int kDigitsAt = kSums + 2 * kPanelSums;    // sums of groups lie behind

  PRISM_HOST_DEVICE static int GroupSums(int64_t k) { return kDigitsAt + static_cast<int>(CeilDiv(k, kPartColumns)) * 2 * kDigitBytes; }
  PRISM_HOST_DEVICE static int Bytes(int64_t k) { return GroupSums(k) + static_cast<int>(CeilDiv(k, kPartColumns)) * (kPartColumns / kGroup) * kGroupSumBytes; }
};

// The digits of a warp's parts [begin, end) for all tokens, and what they sum up to in each group.
template <int kTokens>
class DigitWriter {
 public:
  __device__ DigitWriter(const BitmapDigitsArgs& a, int begin, int end, unsigned char* digits)
      : a_(a), first_(begin * kPartQuads), last_(end * kPartQuads), digits_(digits) {}

  // Returns what the token's sums must be multiplied by.
  __device__ float Write(int token) const {
    float largest = 0.0f;
    const int lane = static_cast<int>(threadIdx.x) % 32;
    for (int quad = first_ + lane; quad < last_; quad += 32) {
      float values[4];
      Load(token, quad, values);
#pragma unroll
      for (int i = 0; i < 4; ++i) largest = Larger(largest, fabsf(values[i]));
    }
    for (int lanes = 16; lanes > 0; lanes /= 2) largest = Larger(largest, __shfl_xor_sync(0xffffffffu, largest, lanes));
    const uint32_t field = FloatBits(largest) >> 23, exponent = field < 30 ? 30 : field;
    const float factor = BitsToFloat((exponent == 255 ? 29 : 283 - exponent) << 23);
    for (int quad = first_ + lane; quad < last_; quad += 32) {
      float values[4];
      Load(token, quad, values);
      uint32_t fixed[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float value = exponent == 255 ? 0.0f : rintf(values[UnitColumn<4>(i)] * factor);
        fixed[i] = (static_cast<uint32_t>(static_cast<int>(value)) + 0x00808080u) ^ 0x00808080u;  // bytes are signed digits
      }
      auto* const to = reinterpret_cast<uint32_t*>(digits_ + (quad / 16 * kTokens + token) * kDigits * 64 + quad % 8 / 2 * 16 + quad % 16 / 8 * 8 + quad % 2 * 4);
      const uint32_t low[2] = {Permute(fixed[0], fixed[1], 0x5140), Permute(fixed[2], fixed[3], 0x5140)};
      const uint32_t high[2] = {Permute(fixed[0], fixed[1], 0x7362), Permute(fixed[2], fixed[3], 0x7362)};
      to[0] = Permute(low[0], low[1], 0x5410);
      to[16] = Permute(low[0], low[1], 0x7632);
      to[32] = Permute(high[0], high[1], 0x5410);
      to[48] = Permute(high[0], high[1], 0x7632);
    }
    return exponent == 255 ? BitsToFloat(0x7fc00000u) : BitsToFloat((exponent - 29) << 23);
  }

 private:
  // NaN stays.
  __device__ static float Larger(float a, float b) { return b > a || b != b ? b : a; }

  __device__ void Load(int token, int quad, float (&values)[4]) const {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int64_t column = 4 * static_cast<int64_t>(quad) + i;
      values[i] = 0.0f;
      if (column < a_.k && token < a_.m) {
        const float x = LoadFloat(a_.x, a_.dtype, token * a_.k + column) * BFloat16ToFloat(a_.column_scale[column]);
        values[i] = a_.dtype == DType::kBFloat16 ? BFloat16ToFloat(FloatToBFloat16(x)) : a_.dtype == DType::kFloat16 ? Float16ToFloat(FloatToFloat16(x)) : x;
      }
    }
  }

  const BitmapDigitsArgs& a_;
  const int first_, last_;  // quads
  unsigned char* const digits_;
};

}  // namespace prism::cuda
