// 8 weights at a time: the survivors of 4 rows x 2 columns are shuffled to their places and widened to float32.
#include "tiered_linear.h"

#include "isa.h"

#if PRISM_X86
#include <immintrin.h>

#include <array>

#include "expand_avx2.h"
#include "typed_avx2.h"
#include "unroll.h"

PRISM_TARGET_BEGIN(PRISM_TARGET_AVX2)
namespace prism::cpu::avx2 {
namespace {

PRISM_DEFINE_UNROLL

typedef __m256 Lanes;
constexpr int kLanes = 8;
constexpr int kGroup = 6;
constexpr int kPanels = 1;
constexpr int64_t kPrefetchBytes = 4096;

inline Lanes Broadcast(float value) { return _mm256_set1_ps(value); }
inline Lanes MulAdd(Lanes a, Lanes b, Lanes c) { return _mm256_fmadd_ps(a, b, c); }

// Rows 4 * part ... + 3 of both columns of a pair, from 8 words of which lane r holds (row r, columns 0 and 1).
inline void StoreWords(__m128i words, DType dtype, float* out) {
  if (dtype == DType::kBFloat16) {
    _mm_store_ps(out, _mm_castsi128_ps(_mm_slli_epi32(words, 16)));
    _mm_store_ps(out + kPanelRows, _mm_castsi128_ps(_mm_and_si128(words, _mm_set1_epi32(-0x10000))));
  } else {
    const __m128i even = _mm_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15);
    const __m256 both = _mm256_cvtph_ps(_mm_shuffle_epi8(words, even));
    _mm_store_ps(out, _mm256_castps256_ps128(both));
    _mm_store_ps(out + kPanelRows, _mm256_extractf128_ps(both, 1));
  }
}

inline int64_t DecodeTile(const uint8_t* mask, const uint8_t* values, DType dtype, float* out) {
  const uint8_t* begin = values;
  const int64_t bytes = DTypeBytes(dtype);
  for (int part = 0; part < 4 * kTilePairs; ++part) {
    float* to = out + part / 4 * 2 * kPanelRows + part % 4 * 4;
    _mm_prefetch(reinterpret_cast<const char*>(values + kPrefetchBytes), _MM_HINT_T0);
    if (dtype == DType::kFloat32) {
      const __m256 both = ExpandDwords(mask[part], values);
      const __m128 low = _mm256_castps256_ps128(both), high = _mm256_extractf128_ps(both, 1);
      _mm_store_ps(to, _mm_shuffle_ps(low, high, 0x88));
      _mm_store_ps(to + kPanelRows, _mm_shuffle_ps(low, high, 0xdd));
    } else {
      StoreWords(ExpandWords(mask[part], values), dtype, to);
    }
    values += bytes * _mm_popcnt_u32(mask[part]);
  }
  return values - begin;
}

inline void StorePanelRow(const float* sums, const TieredLinearArgs& args, int64_t token, int64_t row) {
  for (int64_t r = row; r < std::min(row + kPanelRows, args.n); r += kLanes) {
    __m256 sum = _mm256_loadu_ps(sums + r - row);
    if (args.bias != nullptr) sum = _mm256_add_ps(sum, LoadTyped(args.bias, args.dtype, r, args.n - r));
    StoreTyped(sum, args.y, args.dtype, token * args.n + r, args.n - r);
  }
}

#include "tiered_linear_panels.inc"

}  // namespace

void TieredLinear(const TieredBlocks& w, const TieredLinearArgs& args, int64_t begin, int64_t end) {
  RunPanels(w, args, begin, end);
}

}  // namespace prism::cpu::avx2
PRISM_TARGET_END
#endif
