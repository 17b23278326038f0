// Two rows of a quad, 8 bits of its mask, are expanded by bit deposits (slow before Zen 3, where they are microcode).
#include "bitmap_dual_shift_dequantize.h"
#include "isa.h"

#if PRISM_X86
#include <immintrin.h>

#include "unroll.h"

PRISM_TARGET_BEGIN(PRISM_TARGET_AVX2)
namespace prism::cpu::avx2 {
namespace {

PRISM_DEFINE_UNROLL

template <int kBits>
void ExpandQuads(const uint8_t* masks, int64_t quads, const uint8_t* fill, QuadStream& stream, int64_t& position,
                 uint8_t* out) {
  constexpr uint64_t kOnes = 0x0101010101010101u;
  for (int64_t q = 0; q < quads; ++q, masks += kQuadMaskBytes, out += kQuadBytes) {
    const uint8_t* const codes = stream.At(position);
    int64_t bit = 0;
    Unroll<8>([&](auto i) PRISM_INLINE {
      const uint64_t kept = _pdep_u64(masks[i], kOnes);
      const uint64_t window = LoadMask<uint64_t>(codes + bit / 8) >> bit % 8;
      const uint64_t nothing = LoadMask<uint64_t>(fill + 8 * i) & ~(kept * 0xff);
      const uint64_t bytes = _pdep_u64(window, kept * ((1 << kBits) - 1)) | nothing;
      std::memcpy(out + 8 * i, &bytes, sizeof bytes);
      bit += _mm_popcnt_u32(masks[i]) * kBits;
    });
    position += (bit + 7) / 8;
  }
}

}  // namespace

void BitmapDualShiftDequantize(const BitmapDualShiftDequantizeArgs& a, int64_t begin, int64_t end) {
  DecodeBitmapPanels(a, begin, end, PRISM_BY_BITS(a.grid.bits, ExpandQuads), DualShiftDequantize);
}

}  // namespace prism::cpu::avx2
PRISM_TARGET_END
#endif
