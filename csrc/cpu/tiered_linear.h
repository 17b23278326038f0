// y = x @ weight^T + bias over a weight in tiles; sums in float32, each output rounded once.
// Panels [begin, end) of the weight; an output does not depend on that range.
#pragma once
#include <vector>

#include "tiered.h"

namespace prism::cpu {

// What a linear reads and writes beside its weight. Tokens are taken in groups; group g begins at token TokenGroups::First
// and its activations at element First * TiledColumns(k): [columns or pairs of columns, tokens of the group], 0 past k.
struct TieredLinearArgs {
  const void* x;     // packed by the kernel's own PackActivations
  const void* bias;  // [n] of dtype, or null
  void* y;           // [m, n] of dtype
  int64_t m, n;
  DType dtype;
};

// m tokens in groups of at most `limit`, as equal as they can be.
struct TokenGroups {
  TokenGroups(int64_t m, int64_t limit)
      : count(CeilDiv(m, limit)), base(m / std::max<int64_t>(count, 1)), larger(m - base * count) {}
  int64_t First(int64_t group) const { return group * base + std::min(group, larger); }
  int64_t count, base, larger;  // `larger` groups have one token more
};

struct TieredLinearKernel {
  int64_t group_limit;  // tokens per group
  bool pairs;           // x: bfloat16 pairs of columns, otherwise float32
  void (*run)(const TieredBlocks& w, const TieredLinearArgs& args, int64_t panel_begin, int64_t panel_end);
};

namespace generic { void TieredLinear(const TieredBlocks&, const TieredLinearArgs&, int64_t, int64_t); }
namespace avx2 { void TieredLinear(const TieredBlocks&, const TieredLinearArgs&, int64_t, int64_t); }
namespace avx512 { void TieredLinear(const TieredBlocks&, const TieredLinearArgs&, int64_t, int64_t); }
namespace avx512_bf16 { void TieredLinear(const TieredBlocks&, const TieredLinearArgs&, int64_t, int64_t); }

// Up to this many tokens are one group of the bf16 kernel, which then multiplies straight from its registers.
constexpr int64_t kTieredDirectTokens = 24;

TieredLinearKernel PickTieredLinear(const TieredBlocks& w, DType x_dtype, int64_t m);

// Bytes of all packed activations, and the packing of the groups [begin, end) of x [m, k] of dtype.
int64_t ActivationBytes(const TieredLinearKernel& kernel, int64_t m, int64_t k);
void PackActivations(const TieredLinearKernel& kernel, const void* x, DType dtype, int64_t m, int64_t k, int64_t begin,
                     int64_t end, void* packed);

}  // namespace prism::cpu
