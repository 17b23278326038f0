// AVX-512 for linears over quads: one row per lane, a panel per register. Included by its kernels only.
#pragma once
#include "quad_linear.h"
#include "unroll.h"

#if PRISM_X86
#include <immintrin.h>

#include <cstring>

PRISM_TARGET_BEGIN(PRISM_TARGET_AVX512)
namespace prism::cpu::avx512 {

PRISM_DEFINE_UNROLL

constexpr int kLanes = 16;
constexpr int kPanelStrips = 1;  // strips per panel
constexpr int kManyStrips = 4;   // strips that many tokens share: 4 x 6 sums leave registers for weights and activations
constexpr int kSumRegisters = 16;  // what sums of few tokens may take
#ifdef PRISM_FEW_TILES
using FewWidths = Widths<2>;
using FewWidths4 = Widths<2>;
using Int16Widths = Widths<2>;
using ManyWidths = Widths<2>;
#else
using FewWidths = Widths<1, 4>;
using FewWidths4 = Widths<1, 2, 4, 8, 16>;
using Int16Widths = Widths<1, 2, 4, 8>;  // two sums per token
using ManyWidths = Widths<2, 4, 6>;
#endif
inline constexpr TokenWidths kWidths = MakeWidths(FewWidths(), ManyWidths());
inline constexpr TokenWidths kWidths4 = MakeWidths(FewWidths4(), ManyWidths());
inline constexpr TokenWidths kInt16Widths = MakeWidths(Int16Widths(), Int16Widths());
using Floats = __m512;
using Ints = __m512i;

// The low byte of every lane in all four.
static inline PRISM_INLINE Ints RepeatByte(Ints v) {
  return _mm512_shuffle_epi8(v, _mm512_broadcast_i32x4(_mm_setr_epi32(0, 0x04040404, 0x08080808, 0x0c0c0c0c)));
}

// Without it compilers carry copies of the sums from one loop to the next on the stack.
template <class Vector>
static inline PRISM_INLINE void KeepInRegister(Vector& v) {
  asm("" : "+v"(v));
}

static inline PRISM_INLINE void Prefetch(const void* p) { _mm_prefetch(p, _MM_HINT_T0); }
static inline PRISM_INLINE Floats Set1(float v) { return _mm512_set1_ps(v); }
static inline PRISM_INLINE Floats LoadFloats(const float* p) { return _mm512_loadu_ps(p); }
static inline PRISM_INLINE Floats Add(Floats a, Floats b) { return _mm512_add_ps(a, b); }
static inline PRISM_INLINE Floats Multiply(Floats a, Floats b) { return _mm512_mul_ps(a, b); }
static inline PRISM_INLINE Floats MultiplyAdd(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }
static inline PRISM_INLINE Ints LoadInts(const void* p) { return _mm512_loadu_si512(p); }
static inline PRISM_INLINE void StoreInts(void* p, Ints v) { _mm512_storeu_si512(p, v); }
// Of 16-bit words to the right, or to the left where negative.
template <int kRight>
static inline PRISM_INLINE Ints Shift16(Ints v) {
  if constexpr (kRight == 0) return v;
  if constexpr (kRight > 0) return _mm512_srli_epi16(v, kRight);
  return _mm512_slli_epi16(v, -kRight);
}
// The bits kHigh of each byte from `high`, the others from `low`.
template <int kHigh>
static inline PRISM_INLINE Ints Select(Ints high, Ints low) {
  return _mm512_ternarylogic_epi32(_mm512_set1_epi8(kHigh), high, low, 0xca);
}
static inline PRISM_INLINE float AsFloat(const uint32_t* p) {
  float v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

static inline PRISM_INLINE Floats LoadScales(const QuadGrid& grid, int64_t panel, int64_t group) {
  if (grid.scale == nullptr) return _mm512_set1_ps(1.0f);
  const void* p = grid.scale + (panel * grid.groups + group) * kPanelRows;
  return _mm512_castsi512_ps(
      _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256(static_cast<const __m256i*>(p))), 16));
}

// The zero points of one group, 0 where the codebook has none.
static inline PRISM_INLINE Ints LoadZeros(const QuadGrid& grid, int64_t panel, int64_t group) {
  if (!grid.HasZeros()) return _mm512_setzero_si512();
  const uint8_t* p = grid.zero + (panel * grid.groups + group) * ZeroBytes(grid.bits);
  if (grid.bits > 4) return _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  const __m128i pairs = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)), low = _mm_set1_epi8(15);
  return _mm512_cvtepu8_epi32(
      _mm_unpacklo_epi64(_mm_and_si128(pairs, low), _mm_and_si128(_mm_srli_epi16(pairs, 4), low)));
}

static inline void StoreOutput(Floats v, int64_t count, const QuadOutput& out, int64_t at) {
  const __mmask16 mask = static_cast<__mmask16>((1u << count) - 1);
  if (out.dtype == DType::kFloat32) return _mm512_mask_storeu_ps(static_cast<float*>(out.y) + at, mask, v);
  uint16_t* y = static_cast<uint16_t*>(out.y) + at;
  if (out.dtype == DType::kFloat16) {
    return _mm256_mask_storeu_epi16(y, mask, _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
  }
  const Ints bits = _mm512_castps_si512(v);
  const Ints odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const Ints rounded = _mm512_srli_epi32(_mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff))), 16);
  const Ints quiet = _mm512_set1_epi32(0x7fc0);
  const __mmask16 nan = _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
  _mm512_mask_cvtepi32_storeu_epi16(y, mask, _mm512_mask_mov_epi32(rounded, nan, quiet));
}

// Sums in float32. Weights are (q - z), exact, unless an arithmetic says otherwise.
struct FloatSums {
  using Sum = Floats;
  static PRISM_INLINE Floats Start(Ints, const uint32_t*) { return _mm512_setzero_ps(); }
  static PRISM_INLINE Floats Plus(Floats a, Floats b) { return _mm512_add_ps(a, b); }
  static PRISM_INLINE Floats Value(Floats sum) { return sum; }
  static PRISM_INLINE Floats FirstStart(Ints) { return _mm512_setzero_ps(); }
  template <class Weights>
  static PRISM_INLINE Floats AddStart(Floats sum, Weights) { return sum; }
  template <class Segment>
  static PRISM_INLINE Floats StartChunk(const Segment&, int, const uint32_t*) { return _mm512_setzero_ps(); }
};

// Products in float32.
struct Float32 : FloatSums {
  static constexpr int kParts = 4;
  using Weights = Floats;
  static PRISM_INLINE Floats Dot(Floats sum, Floats weights, const uint32_t* x) {
    return _mm512_fmadd_ps(weights, _mm512_set1_ps(AsFloat(x)), sum);
  }
};

// Up to 6 bits: zero points are subtracted from all four bytes at once, which then are sign-extended.
struct Float32Convert : Float32 {
  using Zero = Ints;
  explicit Float32Convert(const QuadGrid& grid) : mask(_mm512_set1_epi8(static_cast<char>((1 << grid.bits) - 1))) {}
  static PRISM_INLINE Ints Prepare(Ints zero) { return _mm512_mullo_epi32(zero, _mm512_set1_epi32(0x01010101)); }
  template <int kPart>
  PRISM_INLINE Floats Decode(Ints quad, Ints zero) const {
    const Ints steps = _mm512_sub_epi8(_mm512_and_si512(quad, mask), zero);
    return _mm512_cvtepi32_ps(_mm512_srai_epi32(_mm512_slli_epi32(steps, 24 - 8 * kPart), 24));
  }
  Ints mask;
};

struct Float32Wide : Float32 {
  using Zero = Ints;
  explicit Float32Wide(const QuadGrid&) {}
  static PRISM_INLINE Ints Prepare(Ints zero) { return zero; }
  template <int kPart>
  PRISM_INLINE Floats Decode(Ints quad, Ints zero) const {
    const Ints codes = _mm512_and_si512(_mm512_srli_epi32(quad, 8 * kPart), _mm512_set1_epi32(255));
    return _mm512_cvtepi32_ps(_mm512_sub_epi32(codes, zero));
  }
};

struct Float32Levels : Float32 {
  using Zero = Ints;
  explicit Float32Levels(const QuadGrid& grid) {
    alignas(64) float values[16];
    const float* levels = CodebookLevels(grid.codebook);
    for (int i = 0; i < 16; ++i) values[i] = levels[i % CodebookSize(grid.codebook)];
    table = _mm512_load_ps(values);
  }
  static PRISM_INLINE Ints Prepare(Ints zero) { return zero; }
  template <int kPart>
  PRISM_INLINE Floats Decode(Ints quad, Ints) const {
    return _mm512_permutexvar_ps(kPart == 0 ? quad : _mm512_srli_epi32(quad, 8 * kPart), table);
  }
  Floats table;
};

// Unsigned codes: sums begin with -z times the sum of x.
struct Int8 {
  static constexpr int kParts = 1;
  using Sum = Ints;
  using Weights = Ints;
  using Zero = Ints;
  explicit Int8(const QuadGrid& grid) : mask(_mm512_set1_epi8(static_cast<char>((1 << grid.bits) - 1))) {}
  static PRISM_INLINE Ints Prepare(Ints zero) { return zero; }
  template <int kPart>
  PRISM_INLINE Ints Decode(Ints quad, Ints) const { return _mm512_and_si512(quad, mask); }
  static PRISM_INLINE Ints Start(Ints zero, const uint32_t* sum) {
    return _mm512_mullo_epi32(zero, _mm512_set1_epi32(-static_cast<int32_t>(*sum)));
  }
  static PRISM_INLINE Ints Dot(Ints sum, Ints weights, const uint32_t* x) {
    return _mm512_dpbusd_epi32(sum, weights, _mm512_set1_epi32(static_cast<int>(*x)));
  }
  // gcc does not fold the broadcast into the instruction.
  static PRISM_INLINE Ints DotOnce(Ints sum, Ints weights, const uint32_t* x) {
    asm("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(sum) : "v"(weights), "m"(*x));
    return sum;
  }
  static PRISM_INLINE Ints Plus(Ints a, Ints b) { return _mm512_add_epi32(a, b); }
  static PRISM_INLINE Floats Value(Ints sum) { return _mm512_cvtepi32_ps(sum); }
  Ints mask;
};

// Codes whose upper bits are 0 already.
struct Int8Clean : Int8 {
  explicit Int8Clean(const QuadGrid& grid) : Int8(grid) {}
  template <int kPart>
  PRISM_INLINE Ints Decode(Ints quad, Ints) const { return quad; }
};

// Activations of 16 bits: unsigned codes times their low bytes, and times their high bytes. kMasked: whether codes still
// need their upper bits cleared.
template <bool kMasked>
struct Int16 : Int8 {
  static constexpr int kParts = 2, kPlanes = 2, kSumWords = 2;
  explicit Int16(const QuadGrid& grid) : Int8(grid) {}
  template <int kPart>
  PRISM_INLINE Ints Decode(Ints quad, Ints) const { return kMasked ? _mm512_and_si512(quad, mask) : quad; }
  // The sum comes negated, so that it is an operand in memory.
  static PRISM_INLINE Ints Start(Ints zero, const uint32_t* negative_sum) {
    return _mm512_mullo_epi32(zero, _mm512_set1_epi32(static_cast<int>(*negative_sum)));
  }
  static PRISM_INLINE Ints Plus(Ints low, Ints high) { return _mm512_add_epi32(low, _mm512_slli_epi32(high, 8)); }
  static PRISM_INLINE Floats GroupScale(Floats scale, const uint32_t* x_scale) {
    return _mm512_mul_ps(scale, _mm512_set1_ps(AsFloat(x_scale)));
  }
};

// Signed weights (q - z) times activations + 128, which dpbusd takes as its unsigned side; sums begin with -128 times the
// sum of the weights.
struct Int8Signed : Int8 {
  explicit Int8Signed(const QuadGrid& grid) : Int8(grid) {}
  static PRISM_INLINE Ints Prepare(Ints zero) { return _mm512_mullo_epi32(zero, _mm512_set1_epi32(0x01010101)); }
  template <int kPart>
  PRISM_INLINE Ints Decode(Ints quad, Ints zero) const {
    return _mm512_sub_epi8(_mm512_and_si512(quad, mask), zero);
  }
  static PRISM_INLINE Ints Dot(Ints sum, Ints weights, const uint32_t* x) {
    return _mm512_dpbusd_epi32(sum, _mm512_set1_epi32(static_cast<int>(*x)), weights);
  }
  static PRISM_INLINE Ints FirstStart(Ints) { return _mm512_setzero_si512(); }
  static PRISM_INLINE Ints AddStart(Ints sum, Ints weights) {
    const Ints all = _mm512_set1_epi8(static_cast<char>(0x80));
    return _mm512_sub_epi32(sum, _mm512_dpbusd_epi32(_mm512_setzero_si512(), all, weights));
  }
  template <class Segment>
  static PRISM_INLINE Ints StartChunk(const Segment& segment, int strip, const uint32_t*) {
    return segment.start[strip];
  }
};

// q - z of 8-bit codes has 9 bits: the codes stay unsigned, and sums begin with -z times the sum of x.
struct Int8Wide : Int8 {
  explicit Int8Wide(const QuadGrid& grid) : Int8(grid) {}
  static PRISM_INLINE Ints FirstStart(Ints zero) { return zero; }
  static PRISM_INLINE Ints AddStart(Ints start, Ints) { return start; }
  template <class Segment>
  static PRISM_INLINE Ints StartChunk(const Segment& segment, int strip, const uint32_t* sum) {
    return segment.first ? Start(segment.start[strip], sum) : _mm512_setzero_si512();
  }
};

}  // namespace prism::cpu::avx512
PRISM_TARGET_END
#endif
