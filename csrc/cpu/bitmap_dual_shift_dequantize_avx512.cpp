// A quad's codes become bytes by a permutation and a multishift, and find their places by an expansion.
#include "bitmap_dual_shift_dequantize.h"
#include "isa.h"

#if PRISM_X86
#include <immintrin.h>

PRISM_TARGET_BEGIN(PRISM_TARGET_AVX512)
namespace prism::cpu::avx512 {
namespace {

template <int kBits>
void ExpandQuads(const uint8_t* masks, int64_t quads, const uint8_t* fill, QuadStream& stream, int64_t& position,
                 uint8_t* out) {
  alignas(64) uint8_t bytes[64], shifts[64];  // 8 codes are kBits bytes: they go to one 64-bit lane
  for (int i = 0; i < 64; ++i) {
    bytes[i] = static_cast<uint8_t>((i / 8 * kBits + i % 8) & 63);
    shifts[i] = static_cast<uint8_t>(i % 8 * kBits);
  }
  const __m512i order = _mm512_load_si512(bytes), right = _mm512_load_si512(shifts);
  const __m512i low = _mm512_set1_epi8(static_cast<char>((1 << kBits) - 1)), nothing = _mm512_loadu_si512(fill);
  int64_t next = position;
  for (int64_t q = 0; q < quads; ++q, out += kQuadBytes) {
    const uint64_t mask = LoadMask<uint64_t>(masks + q * kQuadMaskBytes);
    __m512i codes = _mm512_loadu_si512(stream.At(next));
    if constexpr (kBits != 8) {
      codes = _mm512_and_si512(_mm512_multishift_epi64_epi8(right, _mm512_permutexvar_epi8(order, codes)), low);
    }
    _mm512_storeu_si512(out, _mm512_mask_expand_epi8(nothing, mask, codes));
    next += (_mm_popcnt_u64(mask) * kBits + 7) / 8;
  }
  position = next;
}

}  // namespace

void BitmapDualShiftDequantize(const BitmapDualShiftDequantizeArgs& a, int64_t begin, int64_t end) {
  DecodeBitmapPanels(a, begin, end, PRISM_BY_BITS(a.grid.bits, ExpandQuads), DualShiftDequantize);
}

}  // namespace prism::cpu::avx512
PRISM_TARGET_END
#endif
