// AVX2 for linears over quads: one row per lane, half a panel per register. Included by its kernels only.
#pragma once
#include "quad_linear.h"
#include "unroll.h"

#if PRISM_X86
#include <immintrin.h>

PRISM_TARGET_BEGIN(PRISM_TARGET_AVX2)
namespace prism::cpu::avx2 {

PRISM_DEFINE_UNROLL

constexpr int kLanes = 8;
constexpr int kPanelStrips = 2;  // both halves of a panel share the activations
constexpr int kManyStrips = 2;
constexpr int kSumRegisters = 8;  // what sums of few tokens may take
#ifdef PRISM_FEW_TILES
using FewWidths = Widths<2>;
using Int16Widths = Widths<2>;
using ManyWidths = Widths<2>;
#else
using FewWidths = Widths<1, 4>;
using Int16Widths = Widths<1, 2>;  // two sums per token and strip
using ManyWidths = Widths<4>;
#endif
inline constexpr TokenWidths kWidths = MakeWidths(FewWidths(), ManyWidths());
inline constexpr TokenWidths kInt16Widths = MakeWidths(Int16Widths(), Int16Widths());
using Floats = __m256;
using Ints = __m256i;

// Without it compilers carry copies of the sums from one loop to the next on the stack.
template <class Vector>
static inline PRISM_INLINE void KeepInRegister(Vector& v) {
  asm("" : "+x"(v));
}
static inline PRISM_INLINE void Prefetch(const void* p) { _mm_prefetch(p, _MM_HINT_T0); }
static inline PRISM_INLINE Floats Set1(float v) { return _mm256_set1_ps(v); }
static inline PRISM_INLINE Floats LoadFloats(const float* p) { return _mm256_loadu_ps(p); }
static inline PRISM_INLINE Floats Add(Floats a, Floats b) { return _mm256_add_ps(a, b); }
static inline PRISM_INLINE Floats Multiply(Floats a, Floats b) { return _mm256_mul_ps(a, b); }
static inline PRISM_INLINE Floats MultiplyAdd(Floats a, Floats b, Floats c) { return _mm256_fmadd_ps(a, b, c); }
static inline PRISM_INLINE Ints LoadInts(const void* p) {
  return _mm256_loadu_si256(static_cast<const __m256i*>(p));
}
// Of 16-bit words to the right, or to the left where negative.
template <int kRight>
static inline PRISM_INLINE Ints Shift16(Ints v) {
  if constexpr (kRight == 0) return v;
  if constexpr (kRight > 0) return _mm256_srli_epi16(v, kRight);
  return _mm256_slli_epi16(v, -kRight);
}
// The bits kHigh of each byte from `high`, the others from `low`.
template <int kHigh>
static inline PRISM_INLINE Ints Select(Ints high, Ints low) {
  const Ints mask = _mm256_set1_epi8(kHigh);
  return _mm256_or_si256(_mm256_and_si256(mask, high), _mm256_andnot_si256(mask, low));
}
static inline PRISM_INLINE float AsFloat(const uint32_t* p) { return BitsToFloat(*p); }

// Eight of the sixteen values of a panel's group: half `strip % 2` of panel `strip / 2`.
static inline PRISM_INLINE int64_t GroupOf(const QuadGrid& grid, int64_t strip, int64_t group) {
  return strip / 2 * grid.groups + group;
}

static inline PRISM_INLINE Floats LoadScales(const QuadGrid& grid, int64_t strip, int64_t group) {
  if (grid.scale == nullptr) return _mm256_set1_ps(1.0f);
  const uint16_t* p = grid.scale + GroupOf(grid, strip, group) * kPanelRows + strip % 2 * kLanes;
  const __m128i words = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(words), 16));
}

// The zero points of one group, 0 where the codebook has none.
static inline PRISM_INLINE Ints LoadZeros(const QuadGrid& grid, int64_t strip, int64_t group) {
  if (!grid.HasZeros()) return _mm256_setzero_si256();
  const uint8_t* p = grid.zero + GroupOf(grid, strip, group) * ZeroBytes(grid.bits);
  if (grid.bits > 4) {
    return _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p + strip % 2 * kLanes)));
  }
  const Ints pairs = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
  return strip % 2 == 0 ? _mm256_and_si256(pairs, _mm256_set1_epi32(15)) : _mm256_srli_epi32(pairs, 4);
}

static inline void StoreOutput(Floats v, int64_t count, const QuadOutput& out, int64_t at) {
  alignas(32) float values[kLanes];
  _mm256_store_ps(values, v);
  for (int64_t i = 0; i < count; ++i) StoreFloat(values[i], out.y, out.dtype, at + i);
}

// Weights (q - z), exact, and products in float32.
struct Float32 {
  static constexpr int kParts = 4;
  using Sum = Floats;
  using Weights = Floats;
  static PRISM_INLINE Floats Dot(Floats sum, Floats weights, const uint32_t* x) {
    return _mm256_fmadd_ps(weights, _mm256_set1_ps(AsFloat(x)), sum);
  }
  static PRISM_INLINE Floats Start(Ints, const uint32_t*) { return _mm256_setzero_ps(); }
  static PRISM_INLINE Floats Plus(Floats a, Floats b) { return _mm256_add_ps(a, b); }
  static PRISM_INLINE Floats Value(Floats sum) { return sum; }
  static PRISM_INLINE Floats FirstStart(Ints) { return _mm256_setzero_ps(); }
  static PRISM_INLINE Floats AddStart(Floats sum, Floats) { return sum; }
  template <class Segment>
  static PRISM_INLINE Floats StartChunk(const Segment&, int, const uint32_t*) { return _mm256_setzero_ps(); }
};

// Up to 6 bits: a code at bit p of a float's mantissa, under the exponent of 2^(23 - p), is that power plus the code.
// Subtracting the power plus the zero point is exact, and neither shifts nor conversions are needed but for the last byte.
struct Float32Convert : Float32 {
  struct Zero {
    Floats offset[3];
  };
  explicit Float32Convert(const QuadGrid& grid) : mask((1 << grid.bits) - 1) {}
  static constexpr float Power(int position) { return static_cast<float>(1 << (23 - position)); }
  static PRISM_INLINE Zero Prepare(Ints zero) {
    const Floats z = _mm256_cvtepi32_ps(zero);
    return {{_mm256_add_ps(_mm256_set1_ps(Power(0)), z), _mm256_add_ps(_mm256_set1_ps(Power(8)), z),
             _mm256_add_ps(_mm256_set1_ps(Power(16)), z)}};
  }
  template <int kPart>
  PRISM_INLINE Floats Decode(Ints quad, const Zero& zero) const {
    constexpr int kPosition = kPart == 3 ? 16 : 8 * kPart;
    if constexpr (kPart == 3) quad = _mm256_srli_epi32(quad, 8);
    const Ints code = _mm256_and_si256(quad, _mm256_set1_epi32(mask << kPosition));
    const Floats moved = _mm256_or_ps(_mm256_castsi256_ps(code), _mm256_set1_ps(Power(kPosition)));
    return _mm256_sub_ps(moved, zero.offset[kPosition / 8]);
  }
  int32_t mask;
};

struct Float32Wide : Float32 {
  using Zero = Ints;
  explicit Float32Wide(const QuadGrid&) {}
  static PRISM_INLINE Ints Prepare(Ints zero) { return zero; }
  template <int kPart>
  PRISM_INLINE Floats Decode(Ints quad, Ints zero) const {
    const Ints codes = _mm256_and_si256(_mm256_srli_epi32(quad, 8 * kPart), _mm256_set1_epi32(255));
    return _mm256_cvtepi32_ps(_mm256_sub_epi32(codes, zero));
  }
};

// Two tables of eight levels; bit 3 of a code chooses between them.
struct Float32Levels : Float32 {
  using Zero = Ints;
  static PRISM_INLINE Ints Prepare(Ints zero) { return zero; }
  explicit Float32Levels(const QuadGrid& grid) {
    float values[16];
    const float* levels = CodebookLevels(grid.codebook);
    for (int i = 0; i < 16; ++i) values[i] = levels[i % CodebookSize(grid.codebook)];
    low = _mm256_loadu_ps(values);
    high = _mm256_loadu_ps(values + 8);
  }
  template <int kPart>
  PRISM_INLINE Floats Decode(Ints quad, Ints) const {
    const Ints codes = _mm256_srli_epi32(quad, 8 * kPart);
    return _mm256_blendv_ps(_mm256_permutevar8x32_ps(low, codes), _mm256_permutevar8x32_ps(high, codes),
                            _mm256_castsi256_ps(_mm256_slli_epi32(codes, 28)));
  }
  Floats low, high;
};

// Sums begin with -z times the sum of x. Pairs of products fit 16 bits up to 6 bits of code.
struct Int8 {
  static constexpr int kParts = 1;
  using Sum = Ints;
  using Weights = Ints;
  using Zero = Ints;
  explicit Int8(const QuadGrid& grid) : mask(_mm256_set1_epi8(static_cast<char>((1 << grid.bits) - 1))) {}
  template <int kPart>
  PRISM_INLINE Ints Decode(Ints quad, Ints) const { return _mm256_and_si256(quad, mask); }
  static PRISM_INLINE Ints Start(Ints zero, const uint32_t* sum) {
    return _mm256_mullo_epi32(zero, _mm256_set1_epi32(-static_cast<int32_t>(*sum)));
  }
  static PRISM_INLINE Ints Products(Ints weights, const uint32_t* x) {
    const Ints pairs = _mm256_maddubs_epi16(weights, _mm256_set1_epi32(static_cast<int>(*x)));
    return _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
  }
  static PRISM_INLINE Ints Dot(Ints sum, Ints weights, const uint32_t* x) {
    return _mm256_add_epi32(sum, Products(weights, x));
  }
  static PRISM_INLINE Ints Plus(Ints a, Ints b) { return _mm256_add_epi32(a, b); }
  static PRISM_INLINE Floats Value(Ints sum) { return _mm256_cvtepi32_ps(sum); }

  static PRISM_INLINE Ints Prepare(Ints zero) { return zero; }
  static PRISM_INLINE Ints FirstStart(Ints zero) { return zero; }
  static PRISM_INLINE Ints AddStart(Ints start, Ints) { return start; }
  template <class Segment>
  static PRISM_INLINE Ints StartChunk(const Segment& segment, int strip, const uint32_t* sum) {
    return segment.first ? Start(segment.start[strip], sum) : _mm256_setzero_si256();
  }
  Ints mask;
};

// Activations of 16 bits: unsigned codes of up to 6 bits times their low bytes, and times their high bytes.
struct Int16 : Int8 {
  static constexpr int kParts = 2, kPlanes = 2, kSumWords = 2;
  using Int8::Int8;
  // The sum comes negated.
  static PRISM_INLINE Ints Start(Ints zero, const uint32_t* negative_sum) {
    return _mm256_mullo_epi32(zero, _mm256_set1_epi32(static_cast<int>(*negative_sum)));
  }
  static PRISM_INLINE Ints Plus(Ints low, Ints high) { return _mm256_add_epi32(low, _mm256_slli_epi32(high, 8)); }
  static PRISM_INLINE Floats GroupScale(Floats scale, const uint32_t* x_scale) {
    return _mm256_mul_ps(scale, _mm256_set1_ps(AsFloat(x_scale)));
  }
};

// 8-bit codes, a nibble at a time.
struct Int8Wide : Int8 {
  using Int8::Int8;
  static PRISM_INLINE Ints Dot(Ints sum, Ints weights, const uint32_t* x) {
    const Ints nibble = _mm256_set1_epi8(15);
    const Ints low = Products(_mm256_and_si256(weights, nibble), x);
    const Ints high = Products(_mm256_and_si256(_mm256_srli_epi16(weights, 4), nibble), x);
    return _mm256_add_epi32(sum, _mm256_add_epi32(low, _mm256_slli_epi32(high, 4)));
  }
};

}  // namespace prism::cpu::avx2
PRISM_TARGET_END
#endif
