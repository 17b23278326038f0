// 8 columns at a time; the last ones of a row through a small copy.
#include "bitmap_unpack.h"
#include "isa.h"

#if PRISM_X86
#include <immintrin.h>

#include "bitmap_values_avx2.h"

PRISM_TARGET_BEGIN(PRISM_TARGET_AVX2)
namespace prism::cpu::avx2 {
namespace {

template <int64_t kBytes>
void Unpack(const BitmapValues& w, int64_t row_begin, int64_t row_end, uint8_t* out) {
  RowStreams streams = w.Streams(1);
  for (int64_t row = row_begin; row < row_end; ++row) {
    const uint8_t *values = streams.Get(0, w.RowBegin(row)), *bitmap = w.RowBitmap(row);
    uint8_t* row_out = out + row * w.k * kBytes;
    for (int64_t j = 0; j < w.k; j += 8, ++bitmap, row_out += 8 * kBytes) {
      uint8_t columns[8 * kBytes];
      uint8_t* to = j + 8 <= w.k ? row_out : columns;
      if constexpr (kBytes == 2) {
        _mm_storeu_si128(reinterpret_cast<__m128i*>(to), ExpandWords(*bitmap, values));
      } else {
        _mm256_storeu_ps(reinterpret_cast<float*>(to), ExpandDwords(*bitmap, values));
      }
      if (to == columns) std::memcpy(row_out, columns, static_cast<size_t>((w.k - j) * kBytes));
      values += kBytes * _mm_popcnt_u32(*bitmap);
    }
  }
}

}  // namespace

void BitmapUnpack(const BitmapValues& w, int64_t row_begin, int64_t row_end, void* out) {
  if (w.ElementBytes() == 2) return Unpack<2>(w, row_begin, row_end, static_cast<uint8_t*>(out));
  Unpack<4>(w, row_begin, row_end, static_cast<uint8_t*>(out));
}

}  // namespace prism::cpu::avx2
PRISM_TARGET_END
#endif
