// Plain C++ for linears over quads: vectors of 16 lanes that compilers lower to whatever the target has.
#pragma once
#include <cstring>

#include "quad_linear.h"
#include "unroll.h"

namespace prism::cpu::generic {

PRISM_DEFINE_UNROLL

constexpr int kLanes = 16;
constexpr int kPanelStrips = 1;
constexpr int kManyStrips = 1;
constexpr int kBlockStrips = 1;
constexpr bool kTotalsInRegisters = false, kFusedDecode = false;
constexpr int kSumRegisters = 4;  // what sums of few tokens may take
using FewWidths = Widths<1>;
#ifdef PRISM_FEW_TILES
using ManyWidths = Widths<2>;
#else
using ManyWidths = Widths<4>;
#endif
inline constexpr TokenWidths kWidths = MakeWidths(FewWidths(), ManyWidths());
typedef float Floats __attribute__((vector_size(64)));
typedef int32_t Ints __attribute__((vector_size(64)));
typedef uint16_t Words __attribute__((vector_size(64)));

template <class Vector>
inline void KeepInRegister(Vector&) {}
inline void Prefetch(const void* p) { __builtin_prefetch(p); }
inline void PrefetchFar(const void* p) { __builtin_prefetch(p, 0, 2); }
inline Floats Set1(float v) { return Floats{} + v; }
inline Floats Add(Floats a, Floats b) { return a + b; }
inline Floats Multiply(Floats a, Floats b) { return a * b; }
inline Floats MultiplyAdd(Floats a, Floats b, Floats c) { return a * b + c; }
inline Floats ToFloats(Ints v) { return __builtin_convertvector(v, Floats); }
inline Floats LoadFloats(const float* p) {
  Floats v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
inline Ints LoadInts(const void* p) {
  Ints v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
template <int kRight>
inline Ints Shift16(Ints v) {
  if constexpr (kRight >= 0) return (Ints)((Words)v >> kRight);
  return (Ints)((Words)v << -kRight);
}
template <int kHigh>
inline Ints Select(Ints high, Ints low) {
  constexpr int32_t mask = kHigh * 0x01010101;
  return (high & mask) | (low & ~mask);
}
inline float AsFloat(const uint32_t* p) { return BitsToFloat(*p); }

inline Floats LoadScales(const QuadGrid& grid, int64_t panel, int64_t group) {
  if (grid.scale == nullptr) return Set1(1.0f);
  Floats v;
  for (int i = 0; i < kLanes; ++i) v[i] = BFloat16ToFloat(grid.scale[(panel * grid.groups + group) * kPanelRows + i]);
  return v;
}

// The zero points of one group, 0 where the codebook has none.
inline Ints LoadZeros(const QuadGrid& grid, int64_t panel, int64_t group) {
  Ints v{};
  if (!grid.HasZeros()) return v;
  for (int i = 0; i < kLanes; ++i) v[i] = ZeroPoint(grid, panel * grid.groups + group, i);
  return v;
}

inline void StoreOutput(Floats v, int64_t count, const QuadOutput& out, int64_t at) {
  for (int64_t i = 0; i < count; ++i) StoreFloat(v[i], out.y, out.dtype, at + i);
}

// Weights (q - z), exact, and products in float32.
struct Float32 {
  static constexpr int kParts = 4;
  using Sum = Floats;
  using Weights = Floats;
  using Zero = Floats;
  static Floats Prepare(Ints zero) { return ToFloats(zero); }
  static Floats Dot(Floats sum, Floats weights, const uint32_t* x) { return weights * AsFloat(x) + sum; }
  static Floats Start(Ints, const uint32_t*) { return Floats{}; }
  static Floats Plus(Floats a, Floats b) { return a + b; }
  static Floats Value(Floats sum) { return sum; }
  static Floats FirstStart(Ints) { return Floats{}; }
  template <class Segment>
  static Floats StartChunk(const Segment&, int, const uint32_t*) { return Floats{}; }
};

struct Float32Convert : Float32 {
  explicit Float32Convert(const QuadGrid& grid) : mask((1 << grid.bits) - 1) {}
  template <int kPart>
  Floats Decode(Ints quad, Floats zero) const { return ToFloats((quad >> 8 * kPart) & mask) - zero; }
  int32_t mask;
};

struct Float32Levels : Float32 {
  explicit Float32Levels(const QuadGrid& grid) : levels(CodebookLevels(grid.codebook)), mask((1 << grid.bits) - 1) {}
  template <int kPart>
  Floats Decode(Ints quad, Floats) const {
    Floats v;
    for (int i = 0; i < kLanes; ++i) v[i] = levels[(quad[i] >> 8 * kPart) & mask];
    return v;
  }
  const float* levels;
  int32_t mask;
};

// Sums begin with -z times the sum of x.
struct Int8 {
  static constexpr int kParts = 1;
  using Sum = Ints;
  using Weights = Ints;
  using Zero = Ints;
  explicit Int8(const QuadGrid& grid) : mask(static_cast<int32_t>(((1u << grid.bits) - 1) * 0x01010101u)) {}
  template <int kPart>
  Ints Decode(Ints quad, Ints) const { return quad & mask; }
  static Ints Start(Ints zero, const uint32_t* sum) { return zero * -static_cast<int32_t>(*sum); }
  static Ints Dot(Ints sum, Ints weights, const uint32_t* x) {
    for (int b = 0; b < 4; ++b) sum += ((weights >> 8 * b) & 255) * static_cast<int32_t>(static_cast<int8_t>(*x >> 8 * b));
    return sum;
  }
  static Ints Plus(Ints a, Ints b) { return a + b; }
  static Floats Value(Ints sum) { return ToFloats(sum); }

  static Ints Prepare(Ints zero) { return zero; }
  static Ints FirstStart(Ints zero) { return zero; }
  template <class Segment>
  static Ints StartChunk(const Segment& segment, int strip, const uint32_t* sum) {
    return segment.first ? Start(segment.start[strip], sum) : Ints{};
  }
  int32_t mask;
};

}  // namespace prism::cpu::generic
