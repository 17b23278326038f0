#include "bitmap_dual_shift_pack.h"

#include <bit>
#include <cstring>

#include "bitmap.h"
#include "isa.h"

namespace prism::cpu {
namespace generic {

void BitmapDualShiftPack(const uint8_t* codes, const uint8_t* bitmap, int64_t rows, int64_t k, int bits, uint8_t* packed) {
  const int64_t blocks = NumBlocks(k);
  const uint32_t low = (1u << bits) - 1;
  for (int64_t row = 0; row < rows; ++row, codes += k) {
    for (int64_t block = 0; block < blocks; ++block, bitmap += 8) {
      uint32_t pending = 0;
      int held = 0;  // bits of `pending` not yet written
      for (uint64_t mask = LoadMask(bitmap); mask != 0; mask &= mask - 1) {
        pending |= (codes[block * kBlock + std::countr_zero(mask)] & low) << held;
        held += bits;
        if (held >= 8) {
          *packed++ = static_cast<uint8_t>(pending);
          pending >>= 8;
          held -= 8;
        }
      }
      if (held > 0) *packed++ = static_cast<uint8_t>(pending);
    }
  }
}

}  // namespace generic

BitmapDualShiftPackFn PickBitmapDualShiftPack() {
#if PRISM_X86
  return Pick<BitmapDualShiftPackFn>("bitmap_dual_shift_pack", {generic::BitmapDualShiftPack, avx2::BitmapDualShiftPack,
                                                                avx512::BitmapDualShiftPack, nullptr});
#else
  return Pick<BitmapDualShiftPackFn>("bitmap_dual_shift_pack", {generic::BitmapDualShiftPack});
#endif
}

int64_t RowCodeBytes(const uint8_t* bitmap, int64_t k, int bits) {
  int64_t bytes = 0;
  for (int64_t block = 0; block < NumBlocks(k); ++block) {
    bytes += CeilDiv(std::popcount(LoadMask(bitmap + 8 * block)) * bits, 8);
  }
  return bytes;
}

}  // namespace prism::cpu
