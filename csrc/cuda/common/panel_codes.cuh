// Quads of codes (common/panels.h: four codes in the bytes of a word, columns 0, 2, 1, 3) to the pairs that tensor cores
// multiply: differences from a zero point, exact in bfloat16 and float16, or levels of a codebook, rounded to either.
#pragma once
#include "../../common/codebooks.h"
#include "panel_mma.cuh"

namespace prism::cuda {

template <class Arithmetic>
inline constexpr bool kIsBFloat16 = Arithmetic::kDType == DType::kBFloat16;

// -(128 + zero) of bfloat16, -(1024 + zero) of float16, in both halves; zero, below 128 for bfloat16, is byte `which`.
template <class Arithmetic>
__device__ uint32_t MinusZero(uint32_t zeros, int which) {
  return Permute(zeros, kIsBFloat16<Arithmetic> ? 0xc3u : 0xe4u, which == 0 ? 0x4040u : 0x4141u);
}

// code - zero of two codes, the bits `mask` of `codes`, each in a half and below 128 for bfloat16: as the mantissa of
// 128 + code (1024 + code of float16) and one exact addition.
template <class Arithmetic>
__device__ uint32_t CodePair(uint32_t codes, uint32_t mask, uint32_t minus_zero) {
  if constexpr (kIsBFloat16<Arithmetic>) return FmaBf16(AndOr(codes, mask, 0x43004300u), 0x3f803f80u, minus_zero);
  return FmaFp16(AndOr(codes, mask, 0x64006400u), 0x3c003c00u, minus_zero);
}

// Columns (0, 1) and (2, 3) of a quad of codes below 128.
template <class Arithmetic>
__device__ uint2 QuadPairs(uint32_t quad, uint32_t minus_zero) {
  return make_uint2(CodePair<Arithmetic>(quad, 0x00ff00ffu, minus_zero),
                    CodePair<Arithmetic>(quad >> 8, 0x00ff00ffu, minus_zero));
}

// The same of 8-bit codes and byte `which` of `zeros`. Their differences fit bfloat16, 128 + code does not: they pass through float32, 2^23 + code.
template <class Arithmetic>
__device__ uint2 BytePairs(uint32_t quad, uint32_t zeros, int which) {
  if constexpr (!kIsBFloat16<Arithmetic>) return QuadPairs<Arithmetic>(quad, MinusZero<Arithmetic>(zeros, which));
  const float base = __uint_as_float(Permute(zeros, 0x4b000000u, which == 0 ? 0x7440u : 0x7441u));
  const auto step = [&](uint32_t selector) { return __uint_as_float(Permute(quad, 0x4b000000u, selector)) - base; };
  return make_uint2(PackBf16(step(0x7440), step(0x7442)), PackBf16(step(0x7441), step(0x7443)));
}

// Up to 16 levels in the arithmetic's dtype: their low bytes, then their high bytes.
struct LevelBytes {
  uint32_t low[4] = {}, high[4] = {};
};

inline LevelBytes MakeLevelBytes(Codebook codebook, DType dtype) {
  LevelBytes bytes;
  const float* levels = CodebookLevels(codebook);
  for (int i = 0; i < CodebookSize(codebook); ++i) {
    const uint32_t level = dtype == DType::kBFloat16 ? FloatToBFloat16(levels[i]) : FloatToFloat16(levels[i]);
    bytes.low[i / 4] |= (level & 255u) << 8 * (i % 4);
    bytes.high[i / 4] |= (level >> 8) << 8 * (i % 4);
  }
  return bytes;
}

// Byte i of the result is byte quad[i] of the 16 of `table`; byte permutations choose among 8.
__device__ inline uint32_t LookUp16(const uint32_t (&table)[4], uint32_t selector, uint32_t upper_half) {
  const uint32_t low = Permute(table[0], table[1], selector), high = Permute(table[2], table[3], selector);
  return low ^ ((low ^ high) & upper_half);
}

// The levels of a quad of codes below 16.
__device__ inline uint2 LevelPairs(uint32_t quad, const LevelBytes& levels) {
  const uint32_t selector = Permute(quad | quad >> 4, 0, 0x4420) & 0x7777u;
  const uint32_t upper_half = (quad >> 3 & 0x01010101u) * 255u;
  const uint32_t low = LookUp16(levels.low, selector, upper_half), high = LookUp16(levels.high, selector, upper_half);
  return make_uint2(Permute(low, high, 0x6240), Permute(low, high, 0x7351));
}

// block / group_blocks is the upper half of (2 * block + 1) * GroupReciprocal(group_blocks), 64 bits: the half that is added
// to `block` keeps the quotient away from whole numbers by more than the reciprocal is rounded, as long as
// block * group_blocks is below 2^30.
inline uint32_t GroupReciprocal(int64_t group_blocks) {
  return static_cast<uint32_t>(CeilDiv(int64_t{1} << 31, group_blocks));
}

inline constexpr int64_t kGroupReciprocalLimit = int64_t{1} << 30;

// Scales and zero points of the groups of one panel, for a lane's rows 2g and 2g + 1.
class GroupGrid {
 public:
  struct Args {
    const uint16_t* scale;  // bfloat16 [panels, groups, 16], aligned to 4 bytes
    const uint8_t* zero;    // [panels, groups, ZeroBytes(bits)], aligned to 2 bytes; null: none
    int groups;
    uint32_t group_reciprocal;  // GroupReciprocal(blocks of 32 columns per group)
    int bits;
  };
  struct Words {
    uint32_t scale, zeros;
  };

  __device__ GroupGrid(const Args& a, int64_t panel)
      : reciprocal_(a.group_reciprocal), zero_bytes_(static_cast<int>(ZeroBytes(a.bits))) {
    const int g = threadIdx.x % 32 / 4;
    scale_ = a.scale + panel * a.groups * kPanelRows + 2 * g;
    zero_ = a.zero == nullptr ? nullptr : a.zero + panel * a.groups * zero_bytes_ + (a.bits <= 4 ? 2 * g % 8 : 2 * g);
  }

  template <bool kHasZeros>
  __device__ void Load(int block, Words& words) const {
    const int group = static_cast<int>(static_cast<uint64_t>(2 * static_cast<uint32_t>(block) + 1) * reciprocal_ >> 32);
    words.scale = __ldg(reinterpret_cast<const uint32_t*>(scale_ + static_cast<int64_t>(group) * kPanelRows));
    if constexpr (kHasZeros) {
      words.zeros = __ldg(reinterpret_cast<const uint16_t*>(zero_ + static_cast<int64_t>(group) * zero_bytes_));
    }
  }

  // The zero points of rows 2g and 2g + 1 as bytes; half bytes hold those of rows below 8 and from 8 on.
  __device__ static uint32_t Zeros(const Words& words, bool half_bytes) {
    return half_bytes ? words.zeros >> (threadIdx.x % 32 < 16 ? 0 : 4) & 0x0f0fu : words.zeros;
  }

  __device__ static void Scales(const Words& words, float (&scale)[2]) {
    scale[0] = __uint_as_float(words.scale << 16);
    scale[1] = __uint_as_float(words.scale & 0xffff0000u);
  }

 private:
  const uint32_t reciprocal_;
  const int zero_bytes_;
  const uint16_t* scale_;
  const uint8_t* zero_;
};

}  // namespace prism::cuda
