// pack_codes: rows of one code per byte to little-endian bit streams; only the low `bits` bits of a code are stored and
// the padding bits of a row's last byte are 0.
#pragma once
#include <cstdint>

namespace prism::cpu {
using PackCodesFn = void (*)(const uint8_t* codes,  // [num_rows, count]
                             int64_t num_rows, int64_t count, int bits,
                             uint8_t* packed);  // [num_rows, PackedBytes(count, bits)]
namespace generic {
void PackCodes(const uint8_t*, int64_t, int64_t, int, uint8_t*);
}
namespace avx2 {
void PackCodes(const uint8_t*, int64_t, int64_t, int, uint8_t*);
}
namespace avx512 {
void PackCodes(const uint8_t*, int64_t, int64_t, int, uint8_t*);
}
PackCodesFn PickPackCodes();
}  // namespace prism::cpu
