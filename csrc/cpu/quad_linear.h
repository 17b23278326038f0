// Linears over quads of codes (common/panels.h): y = x @ weight^T with weight = (q - z) * s * c, or level[q] * s * c.
// q: a code per weight; z, s: per (row, group of columns); c: per column, multiplied into x beforehand.
//
// A lane is a row, an activation is broadcast to all lanes. Per group of columns
//   y[row] += s[row] * (sum of q * x  -  z[row] * sum of x),
// the first sum over small integers, exact in each of the three arithmetics; the second is computed once per token.
// Pruned weights carry the code z (or that of level 0), so they contribute exactly 0.
//
// Few tokens multiply codes as they are decoded. For many, a few columns of some panels are decoded at a time, and all
// tokens pass by while these are in the first cache.
#pragma once
#include <algorithm>
#include <array>
#include <cstdint>
#include <type_traits>
#include <utility>
#include <vector>

#include "../common/codebooks.h"
#include "../common/panels.h"
#include "aligned_bytes.h"
#include "isa.h"

namespace prism::cpu {

enum class Arithmetic {
  kFloat32,   // any activations
  kBFloat16,  // bfloat16 activations; x * c is rounded to bfloat16, products accumulate in float32
  kInt16,     // few bfloat16 tokens; x * c quantized per token and group to 16 bits, integer sums within a group
  kInt8,      // x * c quantized per token to 8 bits; integer sums within a group
};

// 32-bit activations of one token for one quad: four floats, two pairs of bfloat16, four low and four high bytes of int16,
// or four int8.
constexpr int64_t QuadParts(Arithmetic arithmetic) {
  return arithmetic == Arithmetic::kFloat32 ? 4 : arithmetic == Arithmetic::kInt8 ? 1 : 2;
}

// 32-bit words of one token for one group: the sum of its activations, of int16 their scale too.
constexpr int64_t SumWords(Arithmetic arithmetic) { return arithmetic == Arithmetic::kInt16 ? 2 : 1; }

// `count` tokens from `first` on that a kernel multiplies together, padded with zeros to `width`.
struct TokenTile {
  int64_t first;
  int count, width;
};

// Which tiles a kernel has: one of `few` where m is at most the last of them, otherwise tiles of `many`. Both rise. Plain
// arrays: a kernel's table must not run code when the library loads.
struct TokenWidths {
  int few[8], num_few, many[8], num_many;
  bool IsFew(int64_t m) const { return m <= few[num_few - 1]; }
};

// Widths as a type: For calls body(std::integral_constant<int, width>()) for one of them.
template <int... kWidth>
struct Widths {
  static constexpr int kAll[] = {kWidth...};
  static constexpr int kWidest = std::max({kWidth...});
  template <class Body>
  static void For(int width, Body body) {
    static_cast<void>(((width == kWidth && (body(std::integral_constant<int, kWidth>()), true)) || ...));
  }
};

// Bits of a code for which linears are built.
using CodeBits = Widths<2, 3, 4, 5, 6, 8>;

template <int... kFew, int... kMany>
constexpr TokenWidths MakeWidths(Widths<kFew...>, Widths<kMany...>) {
  return {{kFew...}, sizeof...(kFew), {kMany...}, sizeof...(kMany)};
}

inline constexpr TokenWidths kOneToken = {{1}, 1, {1}, 1};

std::vector<TokenTile> CutTokens(int64_t m, const TokenWidths& widths);

// Per row and group: scale and zero point, as stored.
struct QuadGrid {
  const uint16_t* scale;  // bf16 [panels, groups, 16]; null: 1 everywhere
  const uint8_t* zero;    // [panels, groups, ZeroBytes(bits)]; unused unless kUniform, null: 0 everywhere
  int64_t groups, group_size;
  int bits;
  Codebook codebook;

  bool HasZeros() const { return zero != nullptr && codebook == Codebook::kUniform; }
  int64_t GroupQuads(int64_t quads) const { return groups <= 1 ? quads : group_size / kQuadColumns; }
  // The byte that stands for a pruned weight where the zero point does not.
  int ZeroLevel() const {
    const float* levels = CodebookLevels(codebook);
    return levels == nullptr ? 0 : static_cast<int>(std::find(levels, levels + CodebookSize(codebook), 0.0f) - levels);
  }
};

// Activations times the column scale, in the order of the kernels.
struct QuadActivations {
  Arithmetic arithmetic;
  int64_t m, quads;  // quads: of k columns, rounded up to whole blocks of codes
  int64_t parts;     // 32-bit words of one token per quad
  std::vector<TokenTile> tiles;
  uint32_t* x;    // per tile [quads, parts, width]
  uint32_t* sums;  // per tile [groups, SumWords, width]: sums of x over each group, float32 or int32; scales, float32
  float* scales;   // [m], of kInt8

  int64_t TileWords(const TokenTile& tile) const { return tile.width * quads * parts; }
  int64_t TileSums(const TokenTile& tile, const QuadGrid& grid) const {
    return tile.width * grid.groups * SumWords(arithmetic);
  }
};

// Zero point of row `row` in the panel and group that `at` = panel * groups + group names.
inline int ZeroPoint(const QuadGrid& grid, int64_t at, int64_t row) {
  const uint8_t* zero = grid.zero + at * ZeroBytes(grid.bits);
  if (grid.bits > 4) return zero[row];
  return row < 8 ? zero[row] & 15 : zero[row - 8] >> 4;
}

struct QuadInput {
  const void* x;  // [m, k]
  DType dtype;
  int64_t m, k;
  const float* column_scale;  // [k], or null
  bool int8;                  // whether to quantize
};

struct QuadOutput {
  void* y;  // [m, n]
  DType dtype;
  int64_t n;
  const float* bias;  // [16 * panels], or null
};

struct QuadLinearArgs {
  QuadGrid grid;
  QuadActivations activations;
  QuadOutput output;
  int64_t k;
};

// One instruction set and arithmetic. `arrange` writes the tokens [begin, end) of a tile; both run on any thread.
template <class Weight>
struct QuadLinearKernel {
  void (*arrange)(const QuadInput& input, const QuadGrid& grid, const TokenTile& tile, int begin, int end,
                  int64_t quads, uint32_t* x, uint32_t* sums, float* scales);
  void (*run)(const QuadLinearArgs& args, const Weight& weight, int64_t begin_panel, int64_t end_panel);
  int64_t parts;  // words per token and quad that `arrange` writes
  TokenWidths widths4, widths;  // of 4-bit codes, which most weights have, and of all others
};

// Groups that no kernel of steps can follow: one panel, decoded to bytes [quads, 64], column by column. Activations are
// float32 [m, 4 * quads] in natural order, integers where they are quantized. `sums`: 16 * m floats of scratch.
void AddAnyGroups(const QuadLinearArgs& args, const uint8_t* codes, int64_t panel, std::vector<float>& sums);

// Kernels of many tokens take up to this many panels together.
inline constexpr int64_t kPanelsTogether = 4;

// What multiplies codes and values as they are, without a grid.
inline Arithmetic ExactArithmetic(DType x_dtype) {
  return x_dtype == DType::kBFloat16 && ActiveIsa() == Isa::kAvx512Bf16 ? Arithmetic::kBFloat16 : Arithmetic::kFloat32;
}

// Whether 16-bit activations serve: sums of a group fit 32 bits, and its columns are few enough for one scale. Half a step
// is 2^-16 of the largest x * c of the group, where bfloat16 rounds each of them by up to 2^-9 of itself.
inline bool FitsInt16(const QuadGrid& grid, int64_t k) {
  const int64_t columns = std::min(grid.group_size, k), top = (1 << grid.bits) - 1;
  return grid.codebook == Codebook::kUniform && columns <= 256 && columns * top <= 65535;
}

// `int16_tokens`: up to how many the kernels of 16-bit activations are faster than the others.
inline Arithmetic ArithmeticFor(DType x_dtype, bool int8_activations, const QuadGrid& grid, int64_t m, int64_t k,
                                int64_t int16_tokens) {
  if (int8_activations) return Arithmetic::kInt8;
  if (x_dtype == DType::kBFloat16 && m <= int16_tokens && FitsInt16(grid, k)) return Arithmetic::kInt16;
  return ExactArithmetic(x_dtype);
}

}  // namespace prism::cpu
