// What the linears over 2:4 weights multiply: activations as operand B, and two kinds of operand A in the order of
// common/sparse24.cuh, 16-bit values and 4-bit codes with a scale and a zero point per row and group. Both are read as they lie;
// of a group the sums are scaled, so that factors stay exact: a code minus its zero point is a small whole number.
#pragma once
#include "arithmetic.cuh"
#include "sparse24.cuh"

namespace prism::cuda {

// ---- operand B ----------------------------------------------------------------------------------------------------------
struct SparseActivations {
  const uint16_t* x;             // [m, k]
  const uint16_t* column_scale;  // bfloat16 [k], or nullptr
  int64_t m, k;
  bool vectors;  // k is a multiple of 8 and both pointers are aligned to 16 bytes
};

// x[token, column..column + 7], 0 past either end; `column` is a multiple of 8.
__device__ inline uint4 LoadActivations(const SparseActivations& in, int64_t token, int64_t column) {
  if (token >= in.m) return make_uint4(0, 0, 0, 0);
  return LoadEightOfRow(in.x + token * in.k, column, in.k, in.vectors);
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
    const uint32_t even = MinusZeros<Arithmetic>(zeros & 15u), odd = MinusZeros<Arithmetic>(zeros >> 8);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      a[i] = Arithmetic::Fma((word >> 4 * i & 0x000f000fu) | Arithmetic::kCodeBase, Arithmetic::kOnes, i % 2 == 0 ? even : odd);
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
    Arithmetic::template MultiplySparse<0>(sums, a[0], b[0], tile.columns);
    Arithmetic::template MultiplySparse<1>(sums, a[1], b[1], tile.columns);
  } else {
    float part[4] = {0, 0, 0, 0};
    Arithmetic::template MultiplySparse<0>(part, a[0], b[0], tile.columns);
    if constexpr (Source::kGroups == 2) {
#pragma unroll
      for (int i = 0; i < 4; ++i) sums[i] = __fmaf_rn(part[i], Source::Scale(tile, 0, i / 2), sums[i]), part[i] = 0;
    }
    Arithmetic::template MultiplySparse<1>(part, a[1], b[1], tile.columns);
#pragma unroll
    for (int i = 0; i < 4; ++i) sums[i] = __fmaf_rn(part[i], Source::Scale(tile, 1, i / 2), sums[i]);
  }
}

}  // namespace prism::cuda
