// The emulator's half of csrc/cuda/common/ptx.cuh: the same contracts, value by value. Sums of a tensor-core instruction
// are taken in float32 from the smallest k up; the hardware's order is its own, so tests compare with a tolerance.
#pragma once
#include "common/dtype.h"
#include "launch.h"

namespace prism::cuda {

namespace emulated {

struct Fragments {
  uint32_t a[4], b[2];
};

template <class ToFloat>
void Mma(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], ToFloat to_float) {
  const auto lanes = emulator::Exchange(Fragments{{a[0], a[1], a[2], a[3]}, {b[0], b[1]}});
  const auto half = [&](uint32_t pair, int k) { return to_float(static_cast<uint16_t>(pair >> 16 * (k % 2))); };
  const int g = emulator::Lane() / 4, t = emulator::Lane() % 4;
  for (int i = 0; i < 4; ++i) {
    const int row = g + 8 * (i / 2), column = 2 * t + i % 2;
    for (int k = 0; k < 16; ++k) {
      const uint32_t pair_a = lanes[row % 8 * 4 + k % 8 / 2].a[k / 8 * 2 + row / 8];
      const uint32_t pair_b = lanes[column * 4 + k % 8 / 2].b[k / 8];
      d[i] += half(pair_a, k) * half(pair_b, k);
    }
  }
}

inline void MmaBytes(int (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  const auto lanes = emulator::Exchange(Fragments{{a[0], a[1], a[2], a[3]}, {b[0], b[1]}});
  const int g = emulator::Lane() / 4, t = emulator::Lane() % 4;
  for (int i = 0; i < 4; ++i) {
    const int row = g + 8 * (i / 2), column = 2 * t + i % 2;
    for (int k = 0; k < 32; ++k) {
      const uint32_t byte_a = lanes[row % 8 * 4 + k % 16 / 4].a[k / 16 * 2 + row / 8] >> 8 * (k % 4) & 255u;
      const auto byte_b = static_cast<int8_t>(lanes[column * 4 + k % 16 / 4].b[k / 16] >> 8 * (k % 4));
      d[i] = static_cast<int>(static_cast<uint32_t>(d[i]) + static_cast<uint32_t>(static_cast<int>(byte_a) * byte_b));
    }
  }
}

struct SparseFragments {
  uint32_t a[4], b[4], columns;
};

// Each product of an element of d picks, by the columns that the selected lanes hold, its two factors of every quad.
template <class ToFloat>
void MmaSparse(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[4], uint32_t columns, int selector,
               ToFloat to_float) {
  const auto lanes =
      emulator::Exchange(SparseFragments{{a[0], a[1], a[2], a[3]}, {b[0], b[1], b[2], b[3]}, columns});
  const auto half = [&](uint32_t pair, int i) { return to_float(static_cast<uint16_t>(pair >> 16 * i)); };
  const int g = emulator::Lane() / 4, t = emulator::Lane() % 4;
  for (int i = 0; i < 4; ++i) {
    const int row = g + 8 * (i / 2), token = 2 * t + i % 2;
    for (int quad = 0; quad < 8; ++quad) {
      const uint32_t held = lanes[row % 8 * 4 + 2 * selector + quad / 4].columns;
      const int shift = 16 * (row / 8) + 4 * (quad % 4);
      const int column[2] = {static_cast<int>(held >> shift & 3), static_cast<int>(held >> (shift + 2) & 3)};
      if (column[0] >= column[1]) emulator::Fail("the columns of a quad must rise");
      for (int kept = 0; kept < 2; ++kept) {
        const int k = 4 * quad + column[kept];
        const uint32_t pair_a = lanes[row % 8 * 4 + quad % 4].a[quad / 4 * 2 + row / 8];
        const uint32_t pair_b = lanes[token * 4 + k % 8 / 2].b[k / 8];
        d[i] += half(pair_a, kept) * half(pair_b, k % 2);
      }
    }
  }
}

inline void RequireAligned16(const void* at) {
  if (reinterpret_cast<uintptr_t>(at) % 16 != 0) emulator::Fail("an address is not aligned to 16 bytes");
}

template <class ToFloat, class FromFloat>
uint32_t Fma(uint32_t a, uint32_t b, uint32_t c, ToFloat to, FromFloat from) {
  uint32_t result = 0;
  for (int shift = 0; shift < 32; shift += 16) {
    const auto value = [&](uint32_t pair) { return static_cast<double>(to(static_cast<uint16_t>(pair >> shift))); };
    // Rounded to float32 on the way; exact where the result is, which is what kernels use it for.
    result |= static_cast<uint32_t>(from(static_cast<float>(value(a) * value(b) + value(c)))) << shift;
  }
  return result;
}

}  // namespace emulated

inline void MmaBf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  emulated::Mma(d, a, b, BFloat16ToFloat);
}
inline void MmaFp16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  emulated::Mma(d, a, b, Float16ToFloat);
}

inline void MmaU8S8(int (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) { emulated::MmaBytes(d, a, b); }

template <int kSelector>
void MmaSparseBf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[4], uint32_t columns) {
  emulated::MmaSparse(d, a, b, columns, kSelector, BFloat16ToFloat);
}
template <int kSelector>
void MmaSparseFp16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[4], uint32_t columns) {
  emulated::MmaSparse(d, a, b, columns, kSelector, Float16ToFloat);
}

inline void LoadMatrix4(uint32_t (&r)[4], const void* shared_row) {
  emulated::RequireAligned16(shared_row);
  struct Row {
    uint32_t pairs[4];
  } mine;
  std::memcpy(&mine, shared_row, sizeof mine);
  const auto rows = emulator::Exchange(mine);
  for (int j = 0; j < 4; ++j) r[j] = rows[8 * j + emulator::Lane() / 4].pairs[emulator::Lane() % 4];
}

using SharedAddress = unsigned char*;
inline SharedAddress ToShared(const void* at) { return static_cast<unsigned char*>(const_cast<void*>(at)); }
inline void StoreShared2(SharedAddress at, uint32_t offset, uint16_t value) {
  if (reinterpret_cast<uintptr_t>(at + offset) % 2 != 0) emulator::Fail("an address is not aligned to 2 bytes");
  std::memcpy(at + offset, &value, 2);
}

// Copies happen when they are waited for, so that a kernel that does not wait reads what was there before.
inline void CopyAsync16(void* shared, const void* global, int bytes = 16) {
  emulated::RequireAligned16(shared);
  emulated::RequireAligned16(global);
  emulator::Current().copy_groups.back().push_back({shared, global, 16, bytes});
}

inline void CopyAsyncCommit() { emulator::Current().copy_groups.emplace_back(); }

template <int kGroups>
void CopyAsyncWait() {
  auto& groups = emulator::Current().copy_groups;
  while (static_cast<int>(groups.size()) - 1 > kGroups) {
    for (const emulator::PendingCopy& copy : groups.front()) {
      std::memset(copy.to, 0, static_cast<size_t>(copy.bytes));
      if (copy.from_bytes > 0) std::memcpy(copy.to, copy.from, static_cast<size_t>(copy.from_bytes));
    }
    groups.erase(groups.begin());
  }
}

inline uint4 LoadOnce16(const void* at) {
  emulated::RequireAligned16(at);
  uint4 value;
  std::memcpy(&value, at, sizeof value);
  return value;
}

inline void PrefetchL2(const void*) {}  // touches nothing, and may ask for anything

inline uint32_t Permute(uint32_t a, uint32_t b, uint32_t selectors) {
  const uint64_t bytes = static_cast<uint64_t>(b) << 32 | a;
  uint32_t result = 0;
  for (int i = 0; i < 4; ++i) {
    const uint32_t selector = selectors >> 4 * i & 15u;
    const uint32_t byte = static_cast<uint32_t>(bytes >> 8 * (selector & 7u)) & 255u;
    result |= (selector < 8 ? byte : byte >= 128 ? 255u : 0u) << 8 * i;
  }
  return result;
}
inline uint32_t AndOr(uint32_t a, uint32_t mask, uint32_t bits) { return (a & mask) | bits; }

inline int AddFromBelow(int value, int lanes) {
  const int below = __shfl_up_sync(0xffffffffu, value, static_cast<unsigned>(lanes));
  return emulator::Lane() >= lanes ? value + below : value;
}

inline int AddUpWarp(int value) {
  for (int lanes = 16; lanes > 0; lanes /= 2) value += __shfl_xor_sync(0xffffffffu, value, lanes);
  return value;
}

inline uint2 LoadOnce8(const void* at) {
  if (reinterpret_cast<uintptr_t>(at) % 8 != 0) emulator::Fail("an address is not aligned to 8 bytes");
  uint2 value;
  std::memcpy(&value, at, sizeof value);
  return value;
}

inline void Store16(void* at, uint4 value) {
  emulated::RequireAligned16(at);
  std::memcpy(at, &value, sizeof value);
}

inline uint32_t PackBf16(float low, float high) {
  return FloatToBFloat16(low) | static_cast<uint32_t>(FloatToBFloat16(high)) << 16;
}
inline uint32_t PackFp16(float low, float high) {
  return FloatToFloat16(low) | static_cast<uint32_t>(FloatToFloat16(high)) << 16;
}
inline float2 UnpackFp16(uint32_t pair) {
  return {Float16ToFloat(static_cast<uint16_t>(pair)), Float16ToFloat(static_cast<uint16_t>(pair >> 16))};
}
inline uint32_t FmaBf16(uint32_t a, uint32_t b, uint32_t c) {
  return emulated::Fma(a, b, c, BFloat16ToFloat, FloatToBFloat16);
}
inline uint32_t FmaFp16(uint32_t a, uint32_t b, uint32_t c) {
  return emulated::Fma(a, b, c, Float16ToFloat, FloatToFloat16);
}

}  // namespace prism::cuda
