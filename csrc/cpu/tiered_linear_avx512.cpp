// A pair of columns at a time: the survivors of 16 rows x 2 columns are expanded to their places and widened to float32.
#include "tiered_linear.h"

#include "isa.h"

#if PRISM_X86
#include <immintrin.h>

#include <array>

#include "tiered_avx512.h"
#include "typed_avx512.h"
#include "unroll.h"

PRISM_TARGET_BEGIN(PRISM_TARGET_AVX512)
namespace prism::cpu::avx512 {
namespace {

PRISM_DEFINE_UNROLL

typedef __m512 Lanes;
constexpr int kLanes = 16;
constexpr int kGroup = 12;
constexpr int kPanels = 2;

inline Lanes Broadcast(float value) { return _mm512_set1_ps(value); }
inline Lanes MulAdd(Lanes a, Lanes b, Lanes c) { return _mm512_fmadd_ps(a, b, c); }

template <DType kDType>
inline PRISM_INLINE int64_t DecodeTile(const uint8_t* mask, const uint8_t* values, float* out) {
  const uint8_t* begin = values;
  Unroll<kTilePairs>([&](auto j) PRISM_INLINE {
    uint32_t bits;
    std::memcpy(&bits, mask + 4 * j, sizeof bits);
    _mm_prefetch(values + kPrefetchBytes, _MM_HINT_T0);
    __m512 even, odd;
    if constexpr (kDType == DType::kFloat32) {
      const __m512 low = _mm512_castsi512_ps(ExpandDwords(static_cast<__mmask16>(bits), _mm512_loadu_si512(values)));
      const uint8_t* rest = values + 4 * _mm_popcnt_u32(bits & 0xffff);
      const __m512 high = _mm512_castsi512_ps(ExpandDwords(static_cast<__mmask16>(bits >> 16), _mm512_loadu_si512(rest)));
      const __m512i evens = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
      even = _mm512_permutex2var_ps(low, evens, high);
      odd = _mm512_permutex2var_ps(low, _mm512_add_epi32(evens, _mm512_set1_epi32(1)), high);
    } else {
      const __m512i words = ExpandWords(bits, _mm512_loadu_si512(values));
      if constexpr (kDType == DType::kBFloat16) {
        even = _mm512_castsi512_ps(_mm512_slli_epi32(words, 16));
        odd = _mm512_castsi512_ps(_mm512_and_si512(words, _mm512_set1_epi32(-0x10000)));
      } else {
        even = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(words));
        odd = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(_mm512_srli_epi32(words, 16)));
      }
    }
    _mm512_store_ps(out + 2 * j * kPanelRows, even);
    _mm512_store_ps(out + (2 * j + 1) * kPanelRows, odd);
    values += DTypeBytes(kDType) * _mm_popcnt_u32(bits);
  });
  return values - begin;
}

inline int64_t DecodeTile(const uint8_t* mask, const uint8_t* values, DType dtype, float* out) {
  switch (dtype) {
    case DType::kFloat32: return DecodeTile<DType::kFloat32>(mask, values, out);
    case DType::kFloat16: return DecodeTile<DType::kFloat16>(mask, values, out);
    default: return DecodeTile<DType::kBFloat16>(mask, values, out);
  }
}

inline void StorePanelRow(const float* sums, const TieredLinearArgs& args, int64_t token, int64_t row) {
  StoreOutputs(_mm512_loadu_ps(sums), args, token, row);
}

#include "tiered_linear_panels.inc"

}  // namespace

void TieredLinear(const TieredBlocks& w, const TieredLinearArgs& args, int64_t begin, int64_t end) {
  RunPanels(w, args, begin, end);
}

}  // namespace prism::cpu::avx512
PRISM_TARGET_END
#endif
