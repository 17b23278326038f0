#include "pack_codes.h"

#include <algorithm>

#include "../common/codebooks.h"
#include "isa.h"

namespace prism::cpu {
namespace generic {

void PackCodes(const uint8_t* codes, int64_t num_rows, int64_t count, int bits, uint8_t* packed) {
  const uint64_t mask = (uint64_t{1} << bits) - 1;
  for (int64_t row = 0; row < num_rows; ++row, codes += count) {
    for (int64_t begin = 0; begin < count; begin += 8) {  // 8 codes take `bits` bytes
      const int64_t length = std::min<int64_t>(8, count - begin);
      uint64_t word = 0;
      for (int64_t i = 0; i < length; ++i) word |= (codes[begin + i] & mask) << (i * bits);
      for (int64_t byte = PackedBytes(length, bits); byte > 0; --byte, word >>= 8)
        *packed++ = static_cast<uint8_t>(word);
    }
  }
}

}  // namespace generic

PackCodesFn PickPackCodes() {
#if PRISM_X86
  return Pick<PackCodesFn>("pack_codes", {generic::PackCodes, avx2::PackCodes, avx512::PackCodes, nullptr});
#else
  return Pick<PackCodesFn>("pack_codes", {generic::PackCodes});
#endif
}

}  // namespace prism::cpu
