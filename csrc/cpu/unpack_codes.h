// unpack_codes: rows of little-endian bit streams to one code per byte.
#pragma once
#include <cstdint>

namespace prism::cpu {
using UnpackCodesFn = void (*)(const uint8_t* packed,  // [num_rows, PackedBytes(count, bits)]
                               int64_t num_rows, int64_t count, int bits,
                               uint8_t* codes);  // [num_rows, count]
namespace generic {
void UnpackCodes(const uint8_t*, int64_t, int64_t, int, uint8_t*);
}
namespace avx2 {
void UnpackCodes(const uint8_t*, int64_t, int64_t, int, uint8_t*);
}
namespace avx512 {
void UnpackCodes(const uint8_t*, int64_t, int64_t, int, uint8_t*);
}
UnpackCodesFn PickUnpackCodes();
}  // namespace prism::cpu
