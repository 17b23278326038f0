// Survivors to positions, 8 at a time: a byte of a quad's mask is two rows of 4 weights, its 4-bit codes are a window of 32 bits.
// A table says by that byte which bytes of (window, window >> 4) go where. The last byte of the second is below 16: its sign, 0,
// is what pruned weights take. So that they become the zero points of the rows, the window is xor-ed with those before, for
// which the table has a 1 in every nibble of the first row, and what is taken from it is xor-ed with them again.
#pragma once
#include "ptx.cuh"

namespace prism::cuda {

inline constexpr int kEntryBytes = 8;

// Entries by a byte of a mask: {selectors of the first row | of the second << 16, a 1 in each nibble of the first row's codes},
// kCopies times: a lane that reads copy lane % 16 of 16 meets no bank twice.
template <int kCopies, int kThreads>
__device__ void FillExpansions(unsigned char* table) {
  static_assert(kThreads % 256 == 0);
  const uint32_t mask = threadIdx.x % 256;
  uint32_t selectors[2] = {0, 0}, first_row = 0;
  int count = 0;
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const bool kept = (mask >> i & 1) != 0;
    selectors[i / 4] |= static_cast<uint32_t>(kept ? count / 2 + count % 2 * 4 : 15) << 4 * (i % 4);
    if (i < 4 && kept) first_row |= 1u << 4 * count;
    count += kept;
  }
  const uint32_t both = selectors[0] | selectors[1] << 16;
  constexpr int kSlots = kCopies / 2, kShare = kThreads / 256;
#pragma unroll
  for (int i = 0; i < kSlots / kShare; ++i) {  // neighbouring threads write to different banks
    const uint32_t slot = (threadIdx.x + kShare * i + threadIdx.x / 256) % kSlots;
    reinterpret_cast<uint4*>(table)[mask * kSlots + slot] = make_uint4(both, first_row, both, first_row);
  }
}

// Codes of 4 bits, from bit 0 of `window` on, by their entry: a byte of each column of a row, the zero point where it is pruned;
// the high halves of bytes are anything, and what is returned must be xor-ed with the rows' zero points yet.
struct ExpandedRows {
  uint32_t first, second;
};

__device__ inline ExpandedRows ExpandCodes(uint32_t window, uint2 entry, uint32_t second_zeros, uint32_t zero_difference) {
  const uint32_t codes = window ^ (entry.y * zero_difference + second_zeros);
  return {Permute(codes, codes >> 4, entry.x), Permute(codes, codes >> 4, entry.x >> 16)};
}

}  // namespace prism::cuda
