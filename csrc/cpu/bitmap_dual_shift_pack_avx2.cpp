// Survivors are gathered to consecutive bytes, then pext takes the low bits of eight of them at once: 8 codes of b bits
// are exactly b bytes of the stream.
#include "bitmap.h"
#include "bitmap_dual_shift_pack.h"
#include "isa.h"

#if PRISM_X86
#include <immintrin.h>

#include <algorithm>

PRISM_TARGET_BEGIN(PRISM_TARGET_AVX2)
namespace prism::cpu::avx2 {

void BitmapDualShiftPack(const uint8_t* codes, const uint8_t* bitmap, int64_t rows, int64_t k, int bits, uint8_t* packed) {
  const int64_t blocks = NumBlocks(k);
  const uint64_t low = 0x0101010101010101u * ((1u << bits) - 1);
  for (int64_t row = 0; row < rows; ++row, codes += k) {
    for (int64_t block = 0; block < blocks; ++block, bitmap += 8) {
      uint8_t kept[kBlock] = {};
      int count = 0;
      for (uint64_t mask = LoadMask(bitmap); mask != 0; mask = _blsr_u64(mask)) {
        kept[count++] = codes[block * kBlock + _tzcnt_u64(mask)];
      }
      int64_t bytes = CeilDiv(count * bits, 8);
      for (int i = 0; bytes > 0; i += 8, bytes -= bits, packed += bits) {
        uint64_t eight;
        std::memcpy(&eight, kept + i, 8);
        const uint64_t stream = _pext_u64(eight, low);
        if (bytes <= bits) {  // the block's last bytes; the stream ends here, not `bits` bytes on
          std::memcpy(packed, &stream, static_cast<size_t>(bytes));
          packed += bytes;
          break;
        }
        std::memcpy(packed, &stream, static_cast<size_t>(bits));
      }
    }
  }
}

}  // namespace prism::cpu::avx2
PRISM_TARGET_END
#endif
