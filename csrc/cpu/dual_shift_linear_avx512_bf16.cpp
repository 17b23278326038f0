// 16 lanes of two bfloat16 products each. A lane is 32 bits of codes, as in the float32 kernel; weights come from
// tables of 32 bfloat16 values, looked up by the low 5 bits of each 16-bit word, which needs no masking. q - z of the
// wide codes is split in two: q - z + 256 has 9 bits, of which the upper 5 give a multiple of 16 and the lower 4 the
// rest. Narrow ones are multiplied as they are, and z times the sum of x is subtracted: in float32 that costs nothing
// that shows in bfloat16.
#include "dual_shift_linear.h"
#include "isa.h"

#if PRISM_X86
#include <immintrin.h>

#include "codes_avx512.h"
#include "dual_shift_grid_avx512.h"

PRISM_TARGET_BEGIN(PRISM_TARGET_AVX512_BF16)
namespace prism::cpu::avx512_bf16 {
namespace {

using avx512::DecodeGrid;
using avx512::LowMask64;
using avx512::MovedZero;
using avx512::ReduceAdd;
using avx512::SummedZero;
using avx512::Unpacker;

constexpr int kLanes = 16;
using Floats = __m512;
using Ints = __m512i;
Floats Zero() { return _mm512_setzero_ps(); }
Floats MultiplyAdd(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }
Ints LoadInts(const int32_t* p) { return _mm512_loadu_si512(p); }
Ints AsInts(Floats v) { return _mm512_castps_si512(v); }
Floats LoadFloats(const float* p) { return _mm512_loadu_ps(p); }
Floats LookUp(const float* table, Ints lanes) { return _mm512_permutexvar_ps(lanes, _mm512_loadu_ps(table)); }

#include "dual_shift_linear_tile.inc"

struct PairDecoder {
  using X = uint16_t;
  using Weights = __m512i;
  static constexpr int kXWidth = 2 * kLanes;
  explicit PairDecoder(int bits) : unpacker(bits), block_bytes(unpacker.BlockBytes()) {}
  static __m512i LoadX(const uint16_t* x) { return _mm512_loadu_si512(x); }
  static Floats Dot(Floats sum, __m512i weights, __m512i x) {
    return _mm512_dpbf16_ps(sum, (__m512bh)weights, (__m512bh)x);
  }
  Unpacker unpacker;
  int64_t block_bytes;
};

template <class Value>  // index -> float that bfloat16 holds exactly, or rounded
__m512i Table(Value value) {
  uint16_t table[32];
  for (int i = 0; i < 32; ++i) table[i] = FloatToBFloat16(value(i));
  return _mm512_loadu_si512(table);
}

// The table repeats after 2^bits levels, so that bits above a code's own do not matter. Zero points are left to the
// sums of x: uniform codes are looked up as they are.
struct TableDecoder : PairDecoder {
  TableDecoder(int bits, Codebook codebook) : PairDecoder(bits) {
    const float* levels = CodebookLevels(codebook);
    const int count = 1 << bits;
    table = Table([&](int i) { return levels != nullptr ? levels[i % count] : static_cast<float>(i % count); });
  }
  void PrepareRow(const DualShiftLinearArgs& a, int64_t row, float* scales, float* zeros) const {
    DecodeGrid(a, row, unpacker, SummedZero{}, scales, zeros);
  }
  __m512i LookUpWeights(__m512i words) const { return _mm512_permutexvar_epi16(words, table); }
  __m512i table;
};

template <bool kZeroPoint>
struct Bits4 : TableDecoder {
  static constexpr ZeroPoint kZero = kZeroPoint ? ZeroPoint::kSums : ZeroPoint::kNone;
  static constexpr int kSteps = 4, kXVectors = 4;
  static constexpr int XIndex(int step) { return step; }
  using Block = __m512i;
  explicit Bits4(Codebook codebook) : TableDecoder(4, codebook) { block_bytes = 64; }
  Block Load(const uint8_t* codes, int64_t available, Ints) const {
    return _mm512_maskz_loadu_epi8(LowMask64(available), codes);
  }
  template <int kStep>
  __m512i Decode(const Block& block) const {
    return LookUpWeights(kStep == 0 ? block : _mm512_srli_epi16(block, 4 * kStep));
  }
};

template <bool kZeroPoint>
struct NarrowBytes : TableDecoder {
  static constexpr ZeroPoint kZero = kZeroPoint ? ZeroPoint::kSums : ZeroPoint::kNone;
  static constexpr int kSteps = 2, kXVectors = 2;
  static constexpr int XIndex(int step) { return step; }
  using Block = __m512i;
  using TableDecoder::TableDecoder;
  Block Load(const uint8_t* codes, int64_t available, Ints) const { return unpacker.Load(codes, available); }
  template <int kStep>
  __m512i Decode(const Block& block) const {
    return LookUpWeights(_mm512_srli_epi16(block, 8 * kStep));
  }
};

struct WideBytes : PairDecoder {
  static constexpr ZeroPoint kZero = ZeroPoint::kMoved;
  static constexpr int kSteps = 4, kXVectors = 2;
  static constexpr int XIndex(int step) { return step / 2; }
  struct Block {
    __m512i even, odd;
  };  // q - z + 256 in 16 bits
  explicit WideBytes(int bits) : PairDecoder(bits) {
    sixteens = Table([](int i) { return 16.0f * static_cast<float>(i - 16); });
    ones = Table([](int i) { return static_cast<float>(i % 16); });
  }
  void PrepareRow(const DualShiftLinearArgs& a, int64_t row, float* scales, float* zeros) const {
    DecodeGrid(a, row, unpacker, MovedZero{256, 0x00010001}, scales, zeros);
  }
  Block Load(const uint8_t* codes, int64_t available, Ints zero) const {
    const __m512i bytes = unpacker.Load(codes, available);
    return {_mm512_add_epi16(_mm512_and_si512(bytes, _mm512_set1_epi16(0xff)), zero),
            _mm512_add_epi16(_mm512_srli_epi16(bytes, 8), zero)};
  }
  template <int kStep>
  __m512i Decode(const Block& block) const {
    const __m512i words = kStep < 2 ? block.even : block.odd;
    if constexpr (kStep % 2 == 0) return _mm512_permutexvar_epi16(words, ones);
    return _mm512_permutexvar_epi16(_mm512_srli_epi16(words, 4), sixteens);
  }
  __m512i sixteens, ones;
};

void Run(const DualShiftLinearArgs& a, int64_t begin, int64_t end, float* scratch) {
  const auto run = [&](const auto& decoder) {
    RunRows<std::decay_t<decltype(decoder)>, 4, 2, 2, 4>(a, decoder, begin, end, scratch);
  };
  if (a.codebook == Codebook::kNf4) return run(Bits4<false>(a.codebook));
  if (a.codebook == Codebook::kNf3) return run(NarrowBytes<false>(a.bits, a.codebook));
  if (a.bits == 4) return run(Bits4<true>(a.codebook));
  if (a.bits < 4) return run(NarrowBytes<true>(a.bits, a.codebook));
  return run(WideBytes(a.bits));
}

}  // namespace

const DualShiftLinearKernel kDualShiftLinear = {Run, kLanes, true};

}  // namespace prism::cpu::avx512_bf16
PRISM_TARGET_END
#endif
