#include "tiered_linear.h"

#include <array>

#include "isa.h"
#include "unroll.h"

namespace prism::cpu {
namespace generic {
namespace {

PRISM_DEFINE_UNROLL

typedef float Lanes __attribute__((vector_size(16)));
constexpr int kLanes = 4;
constexpr int kGroup = 3;
constexpr int kPanels = 1;

inline Lanes Broadcast(float value) { return Lanes{value, value, value, value}; }
inline Lanes MulAdd(Lanes a, Lanes b, Lanes c) { return a * b + c; }

// [16 columns, 16 rows] of float32; returns the bytes of values that the tile had.
inline int64_t DecodeTile(const uint8_t* mask, const uint8_t* values, DType dtype, float* out) {
  std::fill(out, out + kTileSize, 0.0f);
  int64_t i = 0;
  for (int j = 0; j < kTilePairs; ++j) {
    for (uint32_t bits = LoadPairMask(mask + 4 * j); bits != 0; bits &= bits - 1) {
      const int bit = __builtin_ctz(bits);
      out[(2 * j + (bit & 1)) * kPanelRows + (bit >> 1)] = LoadFloat(values, dtype, i++);
    }
  }
  return i * DTypeBytes(dtype);
}

inline void StorePanelRow(const float* sums, const TieredLinearArgs& args, int64_t token, int64_t row) {
  for (int64_t r = row; r < std::min(row + kPanelRows, args.n); ++r) {
    const float shift = args.bias != nullptr ? LoadFloat(args.bias, args.dtype, r) : 0.0f;
    StoreFloat(sums[r - row] + shift, args.y, args.dtype, token * args.n + r);
  }
}

#include "tiered_linear_panels.inc"

}  // namespace

void TieredLinear(const TieredBlocks& w, const TieredLinearArgs& args, int64_t begin, int64_t end) {
  RunPanels(w, args, begin, end);
}

}  // namespace generic

TieredLinearKernel PickTieredLinear(const TieredBlocks& w, DType x_dtype, int64_t m) {
  const char* op = "tiered_linear";
#if PRISM_X86
  if (ActiveIsa() == Isa::kAvx512Bf16 && w.dtype == DType::kBFloat16 && x_dtype == DType::kBFloat16) {
    RecordKernel(op, Isa::kAvx512Bf16);
    return {m <= kTieredDirectTokens ? kTieredDirectTokens : 12, true, avx512_bf16::TieredLinear};
  }
  const Isa isa = std::min(ActiveIsa(), Isa::kAvx512);
  RecordKernel(op, isa);
  if (isa == Isa::kAvx512) return {12, false, avx512::TieredLinear};
  if (isa == Isa::kAvx2) return {6, false, avx2::TieredLinear};
#else
  RecordKernel(op, Isa::kGeneric);
#endif
  (void)w, (void)x_dtype, (void)m;
  return {generic::kGroup, false, generic::TieredLinear};
}

int64_t ActivationBytes(const TieredLinearKernel& kernel, int64_t m, int64_t k) {
  return m * TiledColumns(k) * (kernel.pairs ? 2 : 4);
}

void PackActivations(const TieredLinearKernel& kernel, const void* x, DType dtype, int64_t m, int64_t k, int64_t begin,
                     int64_t end, void* packed) {
  constexpr int64_t kBlock = 64;  // columns at a time, so that what interleaves tokens stays in the first-level cache
  const TokenGroups groups(m, kernel.group_limit);
  const int64_t columns = TiledColumns(k);
  for (int64_t g = begin; g < end; ++g) {
    const int64_t first = groups.First(g), tokens = groups.First(g + 1) - first;
    for (int64_t block = 0; block < columns; block += kBlock) {
      const int64_t last = std::min(block + kBlock, columns), filled = std::clamp(k, block, last);
      for (int64_t t = 0; t < tokens; ++t) {
        const int64_t row = (first + t) * k;
        if (kernel.pairs) {
          const uint16_t* in = static_cast<const uint16_t*>(x) + row;
          uint32_t* out = static_cast<uint32_t*>(packed) + first * columns / 2 + t;
          for (int64_t j = block / 2; j < filled / 2; ++j) std::memcpy(out + j * tokens, in + 2 * j, sizeof(uint32_t));
          for (int64_t j = filled / 2; j < last / 2; ++j) out[j * tokens] = 2 * j < k ? in[2 * j] : 0;
        } else {
          float* out = static_cast<float*>(packed) + first * columns + t;
          for (int64_t j = block; j < filled; ++j) out[j * tokens] = LoadFloat(x, dtype, row + j);
          for (int64_t j = filled; j < last; ++j) out[j * tokens] = 0.0f;
        }
      }
    }
  }
}

}  // namespace prism::cpu
