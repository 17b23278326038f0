// bitmap_dual_shift_pack: the codes of the survivors behind a bitmap. The codes of each 64-column block are a little-endian
// bit stream padded to a whole byte. The bitmap itself comes from the kernels of bitmap_pack.
#pragma once
#include <cstdint>

namespace prism::cpu {

using BitmapDualShiftPackFn = void (*)(const uint8_t* codes,   // [rows, k], one code per byte
                                       const uint8_t* bitmap,  // [rows, 8 * ceil(k / 64)]
                                       int64_t rows, int64_t k, int bits,
                                       uint8_t* packed);  // BlockCodeBytes of every block, in order

namespace generic { void BitmapDualShiftPack(const uint8_t*, const uint8_t*, int64_t, int64_t, int, uint8_t*); }
namespace avx2 { void BitmapDualShiftPack(const uint8_t*, const uint8_t*, int64_t, int64_t, int, uint8_t*); }
namespace avx512 { void BitmapDualShiftPack(const uint8_t*, const uint8_t*, int64_t, int64_t, int, uint8_t*); }

BitmapDualShiftPackFn PickBitmapDualShiftPack();

// Bytes that the codes of one row take: the sum over its blocks of ceil(survivors * bits / 8).
int64_t RowCodeBytes(const uint8_t* bitmap, int64_t k, int bits);

}  // namespace prism::cpu
