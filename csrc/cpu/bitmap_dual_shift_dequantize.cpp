#include "bitmap_dual_shift_dequantize.h"

#include <bit>
#include <vector>

#include "expand_generic.h"
#include "isa.h"

namespace prism::cpu {
namespace {

// The byte that decodes to 0 of every row and group of a panel: [groups, 16].
void NothingOfPanel(const DualShiftDequantizeArgs& a, int64_t panel, std::vector<uint8_t>& nothing) {
  if (a.codebook != Codebook::kUniform) {
    const float* levels = CodebookLevels(a.codebook);
    const auto level = std::find(levels, levels + CodebookSize(a.codebook), 0.0f) - levels;
    std::fill(nothing.begin(), nothing.end(), static_cast<uint8_t>(level));
    return;
  }
  const uint8_t* zero = a.zero + panel * a.groups * ZeroBytes(a.bits);
  for (int64_t i = 0; i < a.groups * kPanelRows; ++i) {
    const int64_t group = i / kPanelRows, r = i % kPanelRows;
    nothing[i] = a.bits > 4 ? zero[i] : static_cast<uint8_t>((zero[group * 8 + r % 8] >> (r < 8 ? 0 : 4)) & 15);
  }
}

// The quads from `quad` on that share what stands for a pruned weight, which is written to fill [64].
int64_t FillQuads(const DualShiftDequantizeArgs& a, const uint8_t* nothing, int64_t quad, int64_t quads, uint8_t* fill) {
  const int64_t first = quad * kQuadColumns, group = first / a.group_size;
  const bool last_group = group + 1 == a.groups;
  const int64_t whole = last_group ? quads - quad : ((group + 1) * a.group_size - first) / kQuadColumns;
  for (int64_t b = 0; b < kQuadColumns; ++b) {
    const int64_t own = whole > 0 ? group : std::min((first + kQuadOrder[b]) / a.group_size, a.groups - 1);
    for (int64_t r = 0; r < kPanelRows; ++r) fill[r * kQuadColumns + b] = nothing[own * kPanelRows + r];
  }
  return std::clamp<int64_t>(whole, 1, quads - quad);
}

}  // namespace

void DecodeBitmapPanels(const BitmapDualShiftDequantizeArgs& a, int64_t begin, int64_t end, ExpandQuadsFn expand,
                        DualShiftDequantizeFn decode) {
  const int64_t quads = NumQuads(a.grid.k);
  std::vector<uint8_t> scratch(static_cast<size_t>(PanelCodeBytes(a.grid.k, 8) + kQuadBytes));
  std::vector<uint8_t> nothing(static_cast<size_t>(a.grid.groups * kPanelRows));
  uint8_t* const block = scratch.data() + (-reinterpret_cast<uintptr_t>(scratch.data()) & (kQuadBytes - 1));
  QuadStream stream(a.codes, a.size);
  DualShiftDequantizeArgs grid = a.grid;
  grid.bits = 8;
  grid.codes = block;
  grid.zero = nothing.data();
  for (int64_t panel = begin; panel < end; ++panel) {
    NothingOfPanel(a.grid, panel, nothing);
    const uint8_t* masks = a.bitmap + panel * quads * kQuadMaskBytes;
    int64_t position = a.panel_offsets[panel];
    for (int64_t quad = 0; quad < quads;) {
      uint8_t fill[kQuadBytes];
      const int64_t count = FillQuads(a.grid, nothing.data(), quad, quads, fill);
      expand(masks + quad * kQuadMaskBytes, count, fill, stream, position, block + quad * kQuadBytes);
      quad += count;
    }
    const int64_t row = panel * kPanelRows;
    grid.n = std::min(kPanelRows, a.grid.n - row);
    grid.scale = a.grid.scale + panel * a.grid.groups * kPanelRows;
    grid.weight = static_cast<char*>(a.grid.weight) + row * a.grid.k * DTypeBytes(a.grid.dtype);
    decode(grid, 0, 1);
  }
}

namespace generic {
namespace {

// Two neighbouring fields of kBits bits in every 2 * kApart bits of a word: the higher one moves up to bit kApart.
template <int kBits, int kApart>
inline uint64_t Part(uint64_t word) {
  constexpr uint64_t kFirst = ~uint64_t{0} / (~uint64_t{0} >> (64 - 2 * kApart));  // a one at the start of each
  constexpr uint64_t kLow = ((uint64_t{1} << kBits) - 1) * kFirst;
  return (word & kLow) | (word & kLow << kBits) << (kApart - kBits);
}

// 64 codes, a byte each, from 64 readable bytes.
template <int kBits>
inline void SpreadCodes(const uint8_t* __restrict packed, uint8_t* __restrict codes) {
  if constexpr (kBits == 4) {
    for (int i = 0; i < kQuadBytes / 2; ++i) {
      codes[2 * i] = packed[i] & 15;
      codes[2 * i + 1] = packed[i] >> 4;
    }
    return;
  }
  for (int i = 0; i < kQuadBytes / 8; ++i) {
    uint64_t word = LoadMask<uint64_t>(packed + kBits * i);
    word = Part<kBits, 8>(Part<2 * kBits, 16>(Part<4 * kBits, 32>(word)));
    std::memcpy(codes + 8 * i, &word, sizeof word);
  }
}

// A chunk of quads is spread before the first of it is expanded: a read of parts of two recent writes waits for both.
template <int kBits>
void ExpandQuads(const uint8_t* masks, int64_t quads, const uint8_t* fill, QuadStream& stream, int64_t& position,
                 uint8_t* out) {
  constexpr int64_t kChunk = 16;
  uint8_t codes[kChunk][kQuadBytes + 16] = {};
  for (int64_t first = 0; first < quads; first += kChunk, masks += kChunk * kQuadMaskBytes) {
    const int64_t count = std::min(kChunk, quads - first);
    for (int64_t q = 0; q < count; ++q) {
      SpreadCodes<kBits>(stream.At(position), codes[q]);
      position += PackedBytes(std::popcount(LoadMask<uint64_t>(masks + q * kQuadMaskBytes)), kBits);
    }
    for (int64_t q = 0; q < count; ++q) {
      const uint8_t* from = codes[q];
      for (int64_t i = 0; i < kQuadMaskBytes; i += 2, out += 16) {
        StoreVector(ExpandBytes(masks + q * kQuadMaskBytes + i, from, LoadVector<Longs2>(fill + 8 * i)), out);
      }
    }
  }
}

}  // namespace

void BitmapDualShiftDequantize(const BitmapDualShiftDequantizeArgs& a, int64_t begin, int64_t end) {
  DecodeBitmapPanels(a, begin, end, PRISM_BY_BITS(a.grid.bits, ExpandQuads), DualShiftDequantize);
}

}  // namespace generic

BitmapDualShiftDequantizeFn PickBitmapDualShiftDequantize() {
  using Fn = BitmapDualShiftDequantizeFn;
#if PRISM_X86
  return Pick<Fn>("bitmap_dual_shift_dequantize", {generic::BitmapDualShiftDequantize, avx2::BitmapDualShiftDequantize,
                                                   avx512::BitmapDualShiftDequantize, nullptr});
#else
  return Pick<Fn>("bitmap_dual_shift_dequantize", {generic::BitmapDualShiftDequantize});
#endif
}

}  // namespace prism::cpu
