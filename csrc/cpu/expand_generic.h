// Survivors to their places in plain C++: element i of a few that follow one another moves up to where the i-th set bit of
// a mask is. Elements move by 4, 2 and 1 places, the farthest first, 16 bytes at a time; a table knows by the mask which
// places take what arrives. No branch depends on a mask.
#pragma once
#include <array>
#include <cstdint>

#include "bitmap.h"
#include "vectors_generic.h"

namespace prism::cpu::generic {

// For a mask of up to 8 bits: the places that are kept, and those that take an element from 2^s places below in move s.
struct Moves {
  std::array<bool, 8> kept{};
  std::array<std::array<bool, 8>, 3> takes{};

  constexpr explicit Moves(int mask) {
    for (int place = 0, rank = 0; place < 8; ++place) {
      kept[place] = (mask >> place & 1) != 0;
      if (!kept[place]) continue;
      for (int s = 2, at = rank++; s >= 0; --s) {
        if (place - at < 1 << s) continue;
        at += 1 << s;
        takes[s][at] = true;
      }
    }
  }
};

// All bits of the marked ones of the places that fit into 64 bits.
template <int kBits>
constexpr uint64_t AllBits(const std::array<bool, 8>& marked) {
  uint64_t bits = 0;
  for (int place = 0; place < 64 / kBits; ++place) {
    if (marked[place]) bits |= (~uint64_t{0} >> (64 - kBits)) << kBits * place;
  }
  return bits;
}

struct alignas(32) ByteMoves {  // of 8 bytes
  uint64_t by4, by2, by1, kept;
};
struct alignas(16) WordMoves {  // of 4 words of 16 bits for the low bits of a mask, and of 4 for the high ones
  uint64_t by2[2], by1[2], kept[2];
};

struct MoveTables {
  std::array<ByteMoves, 256> bytes{};
  std::array<WordMoves, 256> words{};
  std::array<uint8_t, 256> count{};  // bits of the mask

  constexpr MoveTables() {
    for (int mask = 0; mask < 256; ++mask) {
      const Moves all(mask), low(mask & 15), high(mask >> 4);
      bytes[mask] = {AllBits<8>(all.takes[2]), AllBits<8>(all.takes[1]), AllBits<8>(all.takes[0]), AllBits<8>(all.kept)};
      words[mask] = {{AllBits<16>(low.takes[1]), AllBits<16>(high.takes[1])},
                     {AllBits<16>(low.takes[0]), AllBits<16>(high.takes[0])},
                     {AllBits<16>(low.kept), AllBits<16>(high.kept)}};
      for (const bool kept : all.kept) count[mask] = static_cast<uint8_t>(count[mask] + kept);
    }
  }
};
inline constexpr MoveTables kMoves;

// Places 0 to 15 of two masks: the bytes from `from` on where a mask is set, `fill` elsewhere. `from` moves on; 16 bytes can
// be read there.
inline Longs2 ExpandBytes(const uint8_t* masks, const uint8_t*& from, Longs2 fill) {
  const ByteMoves &a = kMoves.bytes[masks[0]], &b = kMoves.bytes[masks[1]];
  const uint8_t* const next = from + kMoves.count[masks[0]];
  Longs2 moved = {LoadMask<uint64_t>(from), LoadMask<uint64_t>(next)};
  from = next + kMoves.count[masks[1]];
  moved = Select(Longs2{a.by4, b.by4}, moved << 32, moved);
  moved = Select(Longs2{a.by2, b.by2}, moved << 16, moved);
  moved = Select(Longs2{a.by1, b.by1}, moved << 8, moved);
  return Select(Longs2{a.kept, b.kept}, moved, fill);
}

// Places 0 to 7 of a mask: the 16-bit words from `from` on where it is set, 0 elsewhere. `from` moves on; 16 bytes can be
// read there.
inline Longs2 ExpandWords(uint8_t mask, const uint8_t*& from) {
  const WordMoves& moves = kMoves.words[mask];
  Longs2 moved = {LoadMask<uint64_t>(from), LoadMask<uint64_t>(from + 2 * kMoves.count[mask & 15])};
  from += 2 * kMoves.count[mask];
  moved = Select(LoadVector<Longs2>(moves.by2), moved << 32, moved);
  moved = Select(LoadVector<Longs2>(moves.by1), moved << 16, moved);
  return moved & LoadVector<Longs2>(moves.kept);
}

}  // namespace prism::cpu::generic
