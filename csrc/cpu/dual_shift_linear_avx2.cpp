// 8 lanes of float32. A lane is 32 bits of codes: eight codes of 4 bits, or four codes of any other width after
// unpacking to bytes; each step extracts one code per lane.
#include "dual_shift_linear.h"
#include "isa.h"

#if PRISM_X86
#include <immintrin.h>

#include "codes_avx2.h"

PRISM_TARGET_BEGIN(PRISM_TARGET_AVX2)
namespace prism::cpu::avx2 {
namespace {

constexpr int kLanes = 8;
using Floats = __m256;
using Ints = __m256i;
Floats Zero() { return _mm256_setzero_ps(); }
Floats MultiplyAdd(Floats a, Floats b, Floats c) { return _mm256_fmadd_ps(a, b, c); }
Ints LoadInts(const int32_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
Ints AsInts(Floats v) { return _mm256_castps_si256(v); }
Floats LoadFloats(const float* p) { return _mm256_loadu_ps(p); }
Floats LookUp(const float* table, Ints lanes) { return _mm256_permutevar8x32_ps(_mm256_loadu_ps(table), lanes); }
float ReduceAdd(Floats v) {
  __m128 sum = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  sum = _mm_add_ps(sum, _mm_movehl_ps(sum, sum));
  return _mm_cvtss_f32(_mm_add_ss(sum, _mm_movehdup_ps(sum)));
}

#include "dual_shift_linear_tile.inc"

struct Uniform {
  static constexpr bool kHasZero = true;
  explicit Uniform(int bits) : mask(_mm256_set1_epi32((1 << bits) - 1)) {}
  __m256 Weights(__m256i lanes, __m256i zero) const {
    return _mm256_cvtepi32_ps(_mm256_sub_epi32(_mm256_and_si256(lanes, mask), zero));
  }
  __m256i mask;
};

struct Levels8 {  // looked up by the low 3 bits
  static constexpr bool kHasZero = false;
  explicit Levels8(int) : table(_mm256_loadu_ps(kNf3Levels)) {}
  __m256 Weights(__m256i lanes, __m256i) const { return _mm256_permutevar8x32_ps(table, lanes); }
  __m256 table;
};

struct Levels16 {  // two tables, chosen by bit 3
  static constexpr bool kHasZero = false;
  explicit Levels16(int) : low(_mm256_loadu_ps(kNf4Levels)), high(_mm256_loadu_ps(kNf4Levels + 8)) {}
  __m256 Weights(__m256i lanes, __m256i) const {
    const __m256 choose = _mm256_castsi256_ps(_mm256_slli_epi32(lanes, 28));
    return _mm256_blendv_ps(_mm256_permutevar8x32_ps(low, lanes), _mm256_permutevar8x32_ps(high, lanes), choose);
  }
  __m256 low, high;
};

template <class Codes, int kCodeBits>  // bits from one code of a lane to the next
struct Decoder {
  using X = float;
  using Weights = __m256;
  static constexpr ZeroPoint kZero = Codes::kHasZero ? ZeroPoint::kMoved : ZeroPoint::kNone;
  static constexpr int kSteps = 32 / kCodeBits, kXVectors = kSteps, kXWidth = kLanes;
  static constexpr int XIndex(int step) { return step; }
  struct Block {
    __m256i lanes, zero;
  };
  explicit Decoder(int bits) : unpacker(bits), codes(bits), block_bytes(kCodeBits == 4 ? 32 : unpacker.BlockBytes()) {}

  void PrepareRow(const DualShiftLinearArgs& a, int64_t row, float* scales, float* zeros) const {
    const uint16_t* packed_scales = a.scale + row * a.groups;
    for (int64_t g = 0; g < a.groups; g += kLanes) {
      _mm256_storeu_ps(scales + g, LoadBFloat16(packed_scales + g, a.groups - g));
    }
    if constexpr (kZero == ZeroPoint::kMoved) {
      const uint8_t* packed_zeros = a.zero + row * a.zero_bytes;
      int64_t available = a.zero_bytes;
      for (int64_t g = 0; g < a.groups; g += 32) {
        alignas(32) uint8_t bytes[32];
        _mm256_store_si256(reinterpret_cast<__m256i*>(bytes), unpacker.Load(packed_zeros, available));
        packed_zeros += unpacker.BlockBytes();
        available -= unpacker.BlockBytes();
        for (int64_t i = 0; i < 32 && g + i < a.groups; i += kLanes) {
          const __m256i zero = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(bytes + i)));
          _mm256_storeu_ps(zeros + g + i, _mm256_castsi256_ps(zero));
        }
      }
    }
  }

  Block Load(const uint8_t* packed, int64_t available, Ints zero) const {
    if constexpr (kCodeBits != 4) return {unpacker.Load(packed, available), zero};
    uint8_t copy[32];
    if (available < 32) {
      std::memset(copy, 0, sizeof copy);
      if (available > 0) std::memcpy(copy, packed, static_cast<size_t>(available));
      packed = copy;
    }
    return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(packed)), zero};
  }
  template <int kStep>
  __m256 Decode(const Block& block) const {
    return codes.Weights(_mm256_srli_epi32(block.lanes, kCodeBits * kStep), block.zero);
  }
  static __m256 LoadX(const float* x) { return _mm256_loadu_ps(x); }
  static Floats Dot(Floats sum, __m256 weights, __m256 x) { return _mm256_fmadd_ps(weights, x, sum); }

  Unpacker unpacker;
  Codes codes;
  int64_t block_bytes;
};

void Run(const DualShiftLinearArgs& a, int64_t begin, int64_t end, float* scratch) {
  const auto run = [&](const auto& decoder) {
    RunRows<std::decay_t<decltype(decoder)>, 2, 2, 2, 2>(a, decoder, begin, end, scratch);
  };
  if (a.codebook == Codebook::kNf4) return run(Decoder<Levels16, 4>(a.bits));
  if (a.codebook == Codebook::kNf3) return run(Decoder<Levels8, 8>(a.bits));
  if (a.bits == 4) return run(Decoder<Uniform, 4>(a.bits));
  return run(Decoder<Uniform, 8>(a.bits));
}

}  // namespace

const DualShiftLinearKernel kDualShiftLinear = {Run, kLanes, false};

}  // namespace prism::cpu::avx2
PRISM_TARGET_END
#endif
