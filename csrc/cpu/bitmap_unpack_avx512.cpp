// 32 columns of 16-bit values or 16 of float32 at a time, a masked store at the end of a row.
#include "bitmap_unpack.h"
#include "isa.h"

#if PRISM_X86
#include <immintrin.h>

#include "bitmap_values_avx512.h"
#include "codes_avx512.h"

PRISM_TARGET_BEGIN(PRISM_TARGET_AVX512)
namespace prism::cpu::avx512 {
namespace {

void UnpackWords(const BitmapValues& w, RowStreams& streams, int64_t row, uint16_t* out) {
  const uint8_t *values = streams.Get(0, w.RowBegin(row)), *bitmap = w.RowBitmap(row);
  for (int64_t j = 0; j < w.k; j += 32, bitmap += 4) {
    uint32_t mask;
    std::memcpy(&mask, bitmap, sizeof mask);
    const __m512i columns = ExpandWords(mask, _mm512_loadu_si512(values));
    _mm512_mask_storeu_epi16(out + j, static_cast<__mmask32>(LowMask64(std::min<int64_t>(w.k - j, 32))), columns);
    values += 2 * _mm_popcnt_u32(mask);
  }
}

void UnpackDwords(const BitmapValues& w, RowStreams& streams, int64_t row, uint32_t* out) {
  const uint8_t *values = streams.Get(0, w.RowBegin(row)), *bitmap = w.RowBitmap(row);
  for (int64_t j = 0; j < w.k; j += 16, bitmap += 2) {
    uint16_t mask;
    std::memcpy(&mask, bitmap, sizeof mask);
    const __m512i columns = ExpandDwords(mask, _mm512_loadu_si512(values));
    _mm512_mask_storeu_epi32(out + j, LowMask16(w.k - j), columns);
    values += 4 * _mm_popcnt_u32(mask);
  }
}

}  // namespace

void BitmapUnpack(const BitmapValues& w, int64_t row_begin, int64_t row_end, void* out) {
  RowStreams streams = w.Streams(1);
  for (int64_t row = row_begin; row < row_end; ++row) {
    if (w.ElementBytes() == 2) {
      UnpackWords(w, streams, row, static_cast<uint16_t*>(out) + row * w.k);
    } else {
      UnpackDwords(w, streams, row, static_cast<uint32_t*>(out) + row * w.k);
    }
  }
}

}  // namespace prism::cpu::avx512
PRISM_TARGET_END
#endif
