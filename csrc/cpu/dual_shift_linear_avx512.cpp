// 16 lanes of float32. A lane is 32 bits of codes: eight codes of 4 bits, or four codes of any other width after
// unpacking to bytes. Codes up to 4 bits, moved by maxq - z, index a table of 32 weights; wider ones are converted.
#include "dual_shift_linear.h"
#include "isa.h"

#if PRISM_X86
#include <immintrin.h>

#include "codes_avx512.h"
#include "dual_shift_grid_avx512.h"

PRISM_TARGET_BEGIN(PRISM_TARGET_AVX512)
namespace prism::cpu::avx512 {
namespace {

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

struct FloatDecoder {
  using X = float;
  using Weights = __m512;
  static constexpr int kXWidth = kLanes;
  explicit FloatDecoder(int bits) : unpacker(bits), block_bytes(unpacker.BlockBytes()) {}
  static __m512 LoadX(const float* x) { return _mm512_loadu_ps(x); }
  static Floats Dot(Floats sum, __m512 weights, __m512 x) { return _mm512_fmadd_ps(weights, x, sum); }
  Unpacker unpacker;
  int64_t block_bytes;
};

// A table of 32 weights, looked up by the low 5 bits of a lane.
struct TableDecoder : FloatDecoder {
  TableDecoder(int bits, Codebook codebook) : FloatDecoder(bits), maxq((1 << bits) - 1) {
    const float* levels = CodebookLevels(codebook);
    float table[32];
    for (int i = 0; i < 32; ++i)
      table[i] = levels != nullptr ? levels[i % CodebookSize(codebook)] : static_cast<float>(i - maxq);
    low = _mm512_loadu_ps(table);
    high = _mm512_loadu_ps(table + 16);
  }
  void PrepareRow(const DualShiftLinearArgs& a, int64_t row, float* scales, float* zeros) const {
    DecodeGrid(a, row, unpacker, MovedZero{maxq, 0x01010101}, scales, zeros);
  }
  __m512 LookUpWeights(__m512i lanes) const { return _mm512_permutex2var_ps(low, lanes, high); }
  int maxq;
  __m512 low, high;
};

template <bool kZeroPoint>
struct Bits4 : TableDecoder {
  static constexpr ZeroPoint kZero = kZeroPoint ? ZeroPoint::kMoved : ZeroPoint::kNone;
  static constexpr int kSteps = 8, kXVectors = 8;
  static constexpr int XIndex(int step) { return step < 4 ? 2 * step : 2 * step - 7; }
  struct Block {
    __m512i even, odd;
  };  // codes 0, 2, 4, 6 of each lane and codes 1, 3, 5, 7, one per byte
  explicit Bits4(Codebook codebook) : TableDecoder(4, codebook) { block_bytes = 64; }
  Block Load(const uint8_t* codes, int64_t available, Ints zero) const {
    const __m512i nibble = _mm512_set1_epi8(0x0f);
    const __m512i raw = _mm512_maskz_loadu_epi8(LowMask64(available), codes);
    Block block{_mm512_and_si512(raw, nibble), _mm512_and_si512(_mm512_srli_epi16(raw, 4), nibble)};
    if constexpr (kZeroPoint) block = {_mm512_add_epi8(block.even, zero), _mm512_add_epi8(block.odd, zero)};
    return block;
  }
  template <int kStep>
  __m512 Decode(const Block& block) const {
    return LookUpWeights(_mm512_srli_epi32(kStep < 4 ? block.even : block.odd, 8 * (kStep % 4)));
  }
};

template <bool kZeroPoint>
struct NarrowBytes : TableDecoder {
  static constexpr ZeroPoint kZero = kZeroPoint ? ZeroPoint::kMoved : ZeroPoint::kNone;
  static constexpr int kSteps = 4, kXVectors = 4;
  static constexpr int XIndex(int step) { return step; }
  using Block = __m512i;
  using TableDecoder::TableDecoder;
  Block Load(const uint8_t* codes, int64_t available, Ints zero) const {
    const __m512i bytes = unpacker.Load(codes, available);
    return kZeroPoint ? _mm512_add_epi8(bytes, zero) : bytes;
  }
  template <int kStep>
  __m512 Decode(const Block& block) const {
    return LookUpWeights(_mm512_srli_epi32(block, 8 * kStep));
  }
};

struct WideBytes : FloatDecoder {
  static constexpr ZeroPoint kZero = ZeroPoint::kMoved;
  static constexpr int kSteps = 4, kXVectors = 4;
  static constexpr int XIndex(int step) { return step; }
  struct Block {
    __m512i bytes, zero;
  };
  using FloatDecoder::FloatDecoder;
  void PrepareRow(const DualShiftLinearArgs& a, int64_t row, float* scales, float* zeros) const {
    DecodeGrid(a, row, unpacker, MovedZero{0, 1}, scales, zeros);
  }
  Block Load(const uint8_t* codes, int64_t available, Ints zero) const {
    return {unpacker.Load(codes, available), zero};
  }
  template <int kStep>
  __m512 Decode(const Block& block) const {
    const __m512i code = _mm512_and_si512(_mm512_srli_epi32(block.bytes, 8 * kStep), _mm512_set1_epi32(0xff));
    return _mm512_cvtepi32_ps(_mm512_add_epi32(code, block.zero));
  }
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

const DualShiftLinearKernel kDualShiftLinear = {Run, kLanes, false};

}  // namespace prism::cpu::avx512
PRISM_TARGET_END
#endif
