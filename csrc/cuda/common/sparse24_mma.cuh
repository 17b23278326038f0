// What the linears over 2:4 weights multiply: activations as operand B, and two kinds of operand A in the order of
// common/sparse24.cuh, 16-bit values and 4-bit codes with a scale and a zero point per row and group. Both are read as they lie;
// of a group the sums are scaled, so that factors stay exact: a code minus its zero point is a small whole number.
#pragma once
#include "ptx.cuh"
#include "sparse24.cuh"

namespace prism::cuda {

struct SparseBf16 {
  static constexpr uint32_t kOnes = 0x3f803f80u;
  static constexpr uint32_t kCodeBase = 0x43004300u;  // 128 + code, the code in the low bits
  static constexpr uint32_t kZeroBase = 0xc300c300u;  // -(128 + zero point)
  __device__ static float ToFloat(uint32_t bits) { return BFloat16ToFloat(static_cast<uint16_t>(bits)); }
  __device__ static uint16_t FromFloat(float value) { return FloatToBFloat16(value); }
  __device__ static uint32_t Add(uint32_t a, uint32_t b) { return FmaBf16(a, kOnes, b); }
  // x * column_scale of a pair, rounded once; adding -0 keeps every zero as it is.
  __device__ static uint32_t Scale(uint32_t x, uint32_t column_scale) { return FmaBf16(x, column_scale, 0x80008000u); }
  template <int kSelector>
  __device__ static void Mma(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[4], uint32_t columns) {
    MmaSparseBf16<kSelector>(d, a, b, columns);
  }
};

struct SparseFp16 {
  static constexpr uint32_t kOnes = 0x3c003c00u;
  static constexpr uint32_t kCodeBase = 0x64006400u;  // 1024 + code
  static constexpr uint32_t kZeroBase = 0xe400e400u;
  __device__ static float ToFloat(uint32_t bits) { return Float16ToFloat(static_cast<uint16_t>(bits)); }
  __device__ static uint16_t FromFloat(float value) { return FloatToFloat16(value); }
  __device__ static uint32_t Add(uint32_t a, uint32_t b) { return FmaFp16(a, kOnes, b); }
  // Through float32: a bfloat16 scale may lie outside the range of float16 where the product does not.
  __device__ static uint32_t Scale(uint32_t x, uint32_t column_scale) {
    return PackFp16(ToFloat(x & 0xffffu) * BitsToFloat(column_scale << 16),
                    ToFloat(x >> 16) * BitsToFloat(column_scale & 0xffff0000u));
  }
  template <int kSelector>
  __device__ static void Mma(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[4], uint32_t columns) {
    MmaSparseFp16<kSelector>(d, a, b, columns);
  }
};

// ---- operand B ----------------------------------------------------------------------------------------------------------
struct SparseActivations {
  const uint16_t* x;             // [m, k]
  const uint16_t* column_scale;  // bfloat16 [k], or nullptr
  int64_t m, k;
  bool vectors;  // k is a multiple of 8 and both pointers are aligned to 16 bytes
};

__device__ inline uint4 LoadEight(const uint16_t* row, int64_t column, int64_t k, bool vectors) {
  if (column >= k) return make_uint4(0, 0, 0, 0);
  if (vectors) return *reinterpret_cast<const uint4*>(row + column);
  uint32_t pairs[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int64_t first = column + 2 * i;
    pairs[i] = first < k ? row[first] : 0u;
    if (first + 1 < k) pairs[i] |= static_cast<uint32_t>(row[first + 1]) << 16;
  }
  return make_uint4(pairs[0], pairs[1], pairs[2], pairs[3]);
}

// x[token, column..column + 7], 0 past either end; `column` is a multiple of 8.
__device__ inline uint4 LoadActivations(const SparseActivations& in, int64_t token, int64_t column) {
  if (token >= in.m) return make_uint4(0, 0, 0, 0);
  return LoadEight(in.x + token * in.k, column, in.k, in.vectors);
}

template <class Arithmetic>
__device__ uint4 ScaleEight(uint4 x, uint4 column_scale) {
  return make_uint4(Arithmetic::Scale(x.x, column_scale.x), Arithmetic::Scale(x.y, column_scale.y),
                    Arithmetic::Scale(x.z, column_scale.z), Arithmetic::Scale(x.w, column_scale.w));
}

// Lane 4 g + t holds columns 8 t.. of a step of token g. Of its own two quads it keeps the half of the columns that its
// parity takes, and it swaps the other half with its neighbour: fragment i is then that half of quad 4 (t / 2) + i.
__device__ inline void ExchangeHalves(uint4 own, uint32_t (&b)[4]) {
  const bool odd = threadIdx.x & 1;
  const uint32_t first = __shfl_xor_sync(0xffffffffu, odd ? own.x : own.y, 1);
  const uint32_t second = __shfl_xor_sync(0xffffffffu, odd ? own.z : own.w, 1);
  b[0] = odd ? first : own.x;
  b[1] = odd ? second : own.z;
  b[2] = odd ? own.y : first;
  b[3] = odd ? own.w : second;
}

// ---- operand A ----------------------------------------------------------------------------------------------------------
// 16-bit values: 9 bits per weight.
template <class Arithmetic_>
struct SparseValues {
  using Arithmetic = Arithmetic_;
  static constexpr bool kScaled = false;
  static constexpr int kGroups = 1;
  const uint4* values;      // [P, T, 2, 32]
  const uint32_t* columns;  // [P, T, 32]
  int64_t tiles;

  struct Tile {
    uint4 pairs[2];
    uint32_t columns;
  };

  __device__ Tile Load(int64_t panel, int64_t tile, int lane) const {
    const int64_t at = panel * tiles + tile;
    return {{LoadOnce16(values + at * 64 + lane), LoadOnce16(values + at * 64 + 32 + lane)}, columns[at * 32 + lane]};
  }
  __device__ static void Decode(const Tile& tile, int step, int, uint32_t (&a)[4]) {
    a[0] = tile.pairs[step].x, a[1] = tile.pairs[step].y, a[2] = tile.pairs[step].z, a[3] = tile.pairs[step].w;
  }
  __device__ static float Scale(const Tile&, int, int) { return 1.0f; }
};

// 4-bit codes: 3 bits per weight, and 20 per group of a row. A tile lies in one group (kGroups = 1) or its steps in two.
template <class Arithmetic_, int kGroups_>
struct SparseCodes {
  using Arithmetic = Arithmetic_;
  static constexpr bool kScaled = true;
  static constexpr int kGroups = kGroups_;
  const uint2* words;       // [P, T, 32]
  const uint32_t* columns;  // [P, T, 32]
  const uint16_t* scale;    // bfloat16 [P, G, 16]
  const uint8_t* zero;      // [P, G, 8]: rows i and i + 8 in the nibbles of byte i
  int64_t tiles;
  int num_groups, units_per_group, shift;  // units are tiles or steps; shift = log2(units_per_group), -1 if it is none

  struct Tile {
    uint2 words;
    uint32_t columns;
    uint32_t scales[kGroups];  // of rows 2 g and 2 g + 1
    uint32_t zeros[kGroups];
  };

  __device__ Tile Load(int64_t panel, int64_t tile, int lane) const {
    const int64_t at = panel * tiles + tile;
    Tile loaded;
    loaded.words = words[at * 32 + lane];
    loaded.columns = columns[at * 32 + lane];
    const int g = lane / 4;
#pragma unroll
    for (int i = 0; i < kGroups; ++i) {
      const int unit = static_cast<int>(tile) * kGroups + i;
      const int group = min(shift >= 0 ? unit >> shift : unit / units_per_group, num_groups - 1);
      const int64_t row = panel * num_groups + group;
      loaded.scales[i] = reinterpret_cast<const uint32_t*>(scale + row * kPanelRows)[g];
      loaded.zeros[i] = reinterpret_cast<const uint16_t*>(zero + row * kPanelRows / 2)[g % 4] >> 4 * (g / 4) & 0x0f0fu;
    }
    return loaded;
  }
  __device__ static void Decode(const Tile& tile, int step, int, uint32_t (&a)[4]) {
    const uint32_t word = step == 0 ? tile.words.x : tile.words.y, zeros = tile.zeros[kGroups == 1 ? 0 : step];
    const uint32_t even = Arithmetic::kZeroBase | (zeros & 15u) * 0x00010001u;
    const uint32_t odd = Arithmetic::kZeroBase | (zeros >> 8) * 0x00010001u;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      a[i] = Arithmetic::Add((word >> 4 * i & 0x000f000fu) | Arithmetic::kCodeBase, i % 2 == 0 ? even : odd);
    }
  }
  // Of row 2 g + h.
  __device__ static float Scale(const Tile& tile, int step, int h) {
    const uint32_t pair = tile.scales[kGroups == 1 ? 0 : step];
    return BitsToFloat(h == 0 ? pair << 16 : pair & 0xffff0000u);
  }
};

// sums += tile * b of both steps, b[step] being the fragments of 8 tokens and a[step] the decoded tile.
template <class Source>
__device__ void MultiplyTile(float (&sums)[4], const typename Source::Tile& tile, const uint32_t (&a)[2][4],
                             const uint32_t (&b)[2][4]) {
  using Arithmetic = typename Source::Arithmetic;
  if constexpr (!Source::kScaled) {
    Arithmetic::template Mma<0>(sums, a[0], b[0], tile.columns);
    Arithmetic::template Mma<1>(sums, a[1], b[1], tile.columns);
  } else {
    float part[4] = {0, 0, 0, 0};
    Arithmetic::template Mma<0>(part, a[0], b[0], tile.columns);
    if constexpr (Source::kGroups == 2) {
#pragma unroll
      for (int i = 0; i < 4; ++i) sums[i] = __fmaf_rn(part[i], Source::Scale(tile, 0, i / 2), sums[i]), part[i] = 0;
    }
    Arithmetic::template Mma<1>(part, a[1], b[1], tile.columns);
#pragma unroll
    for (int i = 0; i < 4; ++i) sums[i] = __fmaf_rn(part[i], Source::Scale(tile, 1, i / 2), sums[i]);
  }
}

}  // namespace prism::cuda
