// Vectors of 16 bytes in plain C++, and what the generic decoders do with them: compilers have registers for these on every
// 64-bit target, where they leave longer vectors and loops over small arrays in memory.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstring>

#include "../common/panels.h"

namespace prism::cpu::generic {

typedef float Floats4 __attribute__((vector_size(16)));
typedef uint32_t Words4 __attribute__((vector_size(16)));
typedef uint64_t Longs2 __attribute__((vector_size(16)));

inline constexpr int kStripRows = 4;  // rows of a panel in one vector of words
inline constexpr int kPanelStrips = kPanelRows / kStripRows;

template <class Vector>
inline Vector LoadVector(const void* from) {
  Vector v;
  std::memcpy(&v, from, sizeof v);
  return v;
}

template <class Vector>
inline void StoreVector(Vector v, void* to) { std::memcpy(to, &v, sizeof v); }

template <class Vector>
inline Vector Select(Vector mask, Vector chosen, Vector other) { return other ^ ((other ^ chosen) & mask); }

#if defined(__clang__)
inline Words4 LowerWords(Words4 a, Words4 b) { return __builtin_shufflevector(a, b, 0, 4, 1, 5); }
inline Words4 UpperWords(Words4 a, Words4 b) { return __builtin_shufflevector(a, b, 2, 6, 3, 7); }
inline Longs2 LowerLongs(Longs2 a, Longs2 b) { return __builtin_shufflevector(a, b, 0, 2); }
inline Longs2 UpperLongs(Longs2 a, Longs2 b) { return __builtin_shufflevector(a, b, 1, 3); }
#else
inline Words4 LowerWords(Words4 a, Words4 b) { return __builtin_shuffle(a, b, Words4{0, 4, 1, 5}); }
inline Words4 UpperWords(Words4 a, Words4 b) { return __builtin_shuffle(a, b, Words4{2, 6, 3, 7}); }
inline Longs2 LowerLongs(Longs2 a, Longs2 b) { return __builtin_shuffle(a, b, Longs2{0, 2}); }
inline Longs2 UpperLongs(Longs2 a, Longs2 b) { return __builtin_shuffle(a, b, Longs2{1, 3}); }
#endif

// 4 x 4 words.
inline void Transpose(Words4 (&v)[4]) {
  const auto a = reinterpret_cast<Longs2>(LowerWords(v[0], v[1])), b = reinterpret_cast<Longs2>(UpperWords(v[0], v[1]));
  const auto c = reinterpret_cast<Longs2>(LowerWords(v[2], v[3])), d = reinterpret_cast<Longs2>(UpperWords(v[2], v[3]));
  v[0] = reinterpret_cast<Words4>(LowerLongs(a, c));
  v[1] = reinterpret_cast<Words4>(UpperLongs(a, c));
  v[2] = reinterpret_cast<Words4>(LowerLongs(b, d));
  v[3] = reinterpret_cast<Words4>(UpperLongs(b, d));
}

// Four words of each row of a strip, a vector each, to the rows.
inline void StoreStrip(Words4 a, Words4 b, Words4 c, Words4 d, char* out, int64_t stride) {
  Words4 rows[] = {a, b, c, d};
  Transpose(rows);
  for (int r = 0; r < kStripRows; ++r) StoreVector(rows[r], out + r * stride);
}

// Calls decode(data, stride) for a block of 16 rows of kBytes bytes, of which `rows` rows of `bytes` bytes belong to `out`:
// in place where all of them do, otherwise aside.
template <int64_t kBytes, class Decode>
inline void DecodeRows(char* out, int64_t stride, int64_t rows, int64_t bytes, Decode decode) {
  if (rows == kPanelRows && bytes >= kBytes) return decode(out, stride);
  char block[kPanelRows][kBytes];
  decode(block[0], kBytes);
  for (int64_t r = 0; r < rows; ++r) std::memcpy(out + r * stride, block[r], static_cast<size_t>(std::min(bytes, kBytes)));
}

}  // namespace prism::cpu::generic
