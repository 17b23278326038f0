// A pair of columns at a time: the survivors of 16 rows x 2 columns are expanded to their places.
#include "tiered_unpack.h"

#include "isa.h"

#if PRISM_X86
#include <immintrin.h>

#include "tiered_avx512.h"
#include "unroll.h"

PRISM_TARGET_BEGIN(PRISM_TARGET_AVX512)
namespace prism::cpu::avx512 {
namespace {

PRISM_DEFINE_UNROLL

template <class T>
inline PRISM_INLINE int64_t DecodeTile(const uint8_t* mask, const uint8_t* values, T* out) {
  const uint8_t* begin = values;
  Unroll<kTilePairs>([&](auto j) PRISM_INLINE {
    uint32_t bits;
    std::memcpy(&bits, mask + 4 * j, sizeof bits);
    _mm_prefetch(values + kPrefetchBytes, _MM_HINT_T0);
    T* to = out + 2 * kPanelRows * j;
    if constexpr (sizeof(T) == 2) {
      _mm512_store_si512(to, ExpandWords(bits, _mm512_loadu_si512(values)));
    } else {
      const uint8_t* rest = values + 4 * _mm_popcnt_u32(bits & 0xffff);
      _mm512_store_si512(to, ExpandDwords(static_cast<__mmask16>(bits), _mm512_loadu_si512(values)));
      _mm512_store_si512(to + 16, ExpandDwords(static_cast<__mmask16>(bits >> 16), _mm512_loadu_si512(rest)));
    }
    values += sizeof(T) * _mm_popcnt_u32(bits);
  });
  return values - begin;
}

#include "tiered_unpack_panels.inc"

}  // namespace

void TieredUnpack(const TieredBlocks& w, int64_t n, int64_t begin, int64_t end, void* dense) {
  UnpackPanels(w, n, begin, end, dense);
}

}  // namespace prism::cpu::avx512
PRISM_TARGET_END
#endif
