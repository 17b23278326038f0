#include "dual_shift_dequantize.h"

#include <algorithm>

#include "isa.h"
#include "panel_codes.h"
#include "unroll.h"
#include "vectors_generic.h"

namespace prism::cpu {
namespace generic {
namespace {

PRISM_DEFINE_UNROLL

// Codes in the low bytes of two 16-bit halves, under these bits: whole numbers 2^23 + q and, in the high bytes, 2^15 + q.
constexpr uint32_t kLowMagic = 0x4b000000, kHighMagic = 0x47000000;

// Of the rows of a strip: s, and 2^23 + z and 2^15 + z.
struct StripGrid {
  Floats4 scale, zero[2];
};

// Scales and zero points of the group that was asked for last.
class PanelGrid {
 public:
  PanelGrid(const DualShiftDequantizeArgs& args, int64_t panel) : a_(args), first_(panel * args.groups) {}

  // Whether column `last` is of the group that was asked for last, or to its left.
  bool Covers(int64_t last) const { return last < end_ || end_ >= a_.k; }  // columns past k have any

  void MoveTo(int64_t column) {
    if (column >= begin_ && Covers(column)) return;
    const int64_t group = std::min(column / a_.group_size, a_.groups - 1);
    begin_ = group * a_.group_size;
    end_ = begin_ + a_.group_size;
    float scale[kPanelRows], zero[kPanelRows] = {};
    LoadScales(a_.scale + (first_ + group) * kPanelRows, scale);
    if (a_.codebook == Codebook::kUniform) LoadZeros(a_.zero + (first_ + group) * ZeroBytes(a_.bits), a_.bits, zero);
    for (int strip = 0; strip < kPanelStrips; ++strip) {
      const auto own = LoadVector<Floats4>(zero + strip * kStripRows);
      strips_[strip] = {LoadVector<Floats4>(scale + strip * kStripRows), {own + 0x1p23f, own + 0x1p15f}};
    }
  }

  const StripGrid& operator[](int strip) const { return strips_[strip]; }

 private:
  const DualShiftDequantizeArgs& a_;
  int64_t first_, begin_ = 0, end_ = 0;
  StripGrid strips_[kPanelStrips] = {};
};

// q - z of byte kByte of each lane, exact.
struct Uniform {
  explicit Uniform(int bits) : mask((1u << bits) - 1) {}
  template <int kByte>
  Floats4 Step(Words4 quad, const StripGrid& grid) const {
    const Words4 half = kByte < 2 ? quad : quad >> 16;
    const Words4 low = (half & mask) | kLowMagic, high = (half & (mask << 8)) | kHighMagic;
    return reinterpret_cast<Floats4>(kByte % 2 == 0 ? low : high) - grid.zero[kByte % 2];
  }
  uint32_t mask;
};

struct Levels {
  explicit Levels(const DualShiftDequantizeArgs& a) : levels(CodebookLevels(a.codebook)), mask((1u << a.bits) - 1) {}
  template <int kByte>
  Floats4 Step(Words4 quad, const StripGrid&) const {
    const Words4 code = quad >> 8 * kByte & mask;
    return Floats4{levels[code[0]], levels[code[1]], levels[code[2]], levels[code[3]]};
  }
  const float* levels;
  uint32_t mask;
};

// Results are never NaN, because scales are finite.
inline Words4 RoundedBits(Floats4 value) {
  const auto bits = reinterpret_cast<Words4>(value);
  return bits + 0x7fffu + (bits >> 16 & 1u);
}

// Two columns to one lane.
template <DType kDType>
inline Words4 Pair(Floats4 low, Floats4 high) {
  if constexpr (kDType == DType::kBFloat16) return RoundedBits(low) >> 16 | (RoundedBits(high) & 0xffff0000u);
  Words4 words;
  for (int r = 0; r < kStripRows; ++r) {
    words[r] = FloatToFloat16(low[r]) | static_cast<uint32_t>(FloatToFloat16(high[r])) << 16;
  }
  return words;
}

// The quads of a block of planes by strips; lane r holds row r, byte b its column kQuadOrder[b]; the bits above a code are
// undefined.
using BlockQuads = Words4[kBlockQuads][kPanelStrips];

template <int kWidth>
inline Words4 Plane(const uint8_t* vectors, int quad, int strip) {
  constexpr int kPerVector = 8 / kWidth;
  const auto bytes = vectors + quad / kPerVector * kQuadBytes + strip * kStripRows * kQuadColumns;
  return LoadVector<Words4>(bytes) >> kWidth * (quad % kPerVector);
}

template <int kBits>
void ExpandBlock(const uint8_t* block, BlockQuads& quads) {
  constexpr PlaneWidths kWidths = PlaneWidthsOf(kBits);
  constexpr uint32_t kLowMask = ((1u << kWidths.low) - 1) * 0x01010101u;
  Unroll<kBlockQuads>([&](auto q) PRISM_INLINE {
    for (int strip = 0; strip < kPanelStrips; ++strip) {
      quads[q][strip] = Plane<kWidths.low>(block, q, strip);
      if constexpr (kWidths.high != 0) {
        constexpr uint32_t kHighMask = ((1u << kWidths.high) - 1) * 0x01010101u;
        const Words4 high = Plane<kWidths.high>(block + kWidths.low * kQuadBytes, q, strip) & kHighMask;
        quads[q][strip] = (quads[q][strip] & kLowMask) | high << kWidths.low;
      }
    }
  });
}
using ExpandBlockFn = void (*)(const uint8_t* block, BlockQuads& quads);

// One column of kQuadColumns at a time; `column` is the scale of each, in every lane.
template <bool kOneGroup, class Steps>
PRISM_INLINE inline void DecodeQuad(const Steps& steps, Words4 quad, const Floats4* column, int64_t first, int strip,
                                    const StripGrid& one, PanelGrid& grid, Floats4 (&values)[kQuadColumns]) {
  Unroll<kQuadColumns>([&](auto c) PRISM_INLINE {
    if constexpr (!kOneGroup) grid.MoveTo(first + c);
    const StripGrid& own = kOneGroup ? one : grid[strip];
    values[c] = steps.template Step<kQuadOrder[c]>(quad, own) * own.scale * column[c];
  });
}

template <DType kDType, bool kOneGroup, class Steps>
[[gnu::noinline]] void DecodeBlock(const Steps& steps, const BlockQuads& quads, const Floats4* column, int64_t first,
                                   PanelGrid& grid, char* out, int64_t stride) {
  for (int strip = 0; strip < kPanelStrips; ++strip, out += kStripRows * stride) {
    const StripGrid one = grid[strip];
    const auto decode = [&](int q, Floats4(&values)[kQuadColumns]) PRISM_INLINE {
      const int64_t at = q * kQuadColumns;
      DecodeQuad<kOneGroup>(steps, quads[q][strip], column + at, first + at, strip, one, grid, values);
    };
    if constexpr (kDType == DType::kFloat32) {
      for (int q = 0; q < kBlockQuads; ++q) {
        Floats4 values[kQuadColumns];
        decode(q, values);
        const auto word = [&](int c) { return reinterpret_cast<Words4>(values[c]); };
        StoreStrip(word(0), word(1), word(2), word(3), out + q * 16, stride);
      }
    } else {
      for (int q = 0; q < kBlockQuads; q += 2) {
        Floats4 values[kQuadColumns], next[kQuadColumns];
        decode(q, values);
        decode(q + 1, next);
        StoreStrip(Pair<kDType>(values[0], values[1]), Pair<kDType>(values[2], values[3]),
                   Pair<kDType>(next[0], next[1]), Pair<kDType>(next[2], next[3]), out + q * 8, stride);
      }
    }
  }
}

template <DType kDType, class Steps>
void DecodePanels(const DualShiftDequantizeArgs& a, const Steps& steps, int64_t begin, int64_t end) {
  constexpr int64_t kBytes = kDType == DType::kFloat32 ? 4 : 2;
  const ExpandBlockFn expand = a.bits == 2   ? ExpandBlock<2>
                               : a.bits == 3 ? ExpandBlock<3>
                               : a.bits == 4 ? ExpandBlock<4>
                               : a.bits == 5 ? ExpandBlock<5>
                               : a.bits == 6 ? ExpandBlock<6>
                                             : ExpandBlock<8>;
  for (int64_t panel = begin; panel < end; ++panel) {
    const uint8_t* block = a.codes + panel * PanelCodeBytes(a.k, a.bits);
    const int64_t row = panel * kPanelRows, rows = std::min(kPanelRows, a.n - row);
    PanelGrid grid(a, panel);
    for (int64_t first = 0; first < a.k; first += kBlockColumns, block += a.bits * kQuadBytes) {
      BlockQuads quads;
      Floats4 column[kBlockColumns];
      expand(block, quads);
      for (int c = 0; c < kBlockColumns; ++c) column[c] = a.column_scale[first + c] - Floats4{};
      grid.MoveTo(first);
      char* const out = static_cast<char*>(a.weight) + (row * a.k + first) * kBytes;
      DecodeRows<kBlockColumns * kBytes>(out, a.k * kBytes, rows, (a.k - first) * kBytes, [&](char* to, int64_t stride) {
        if (grid.Covers(first + kBlockColumns - 1)) {
          DecodeBlock<kDType, true>(steps, quads, column, first, grid, to, stride);
        } else {
          DecodeBlock<kDType, false>(steps, quads, column, first, grid, to, stride);
        }
      });
    }
  }
}

template <DType kDType>
void Run(const DualShiftDequantizeArgs& a, int64_t begin, int64_t end) {
  if (a.codebook == Codebook::kUniform) return DecodePanels<kDType>(a, Uniform(a.bits), begin, end);
  DecodePanels<kDType>(a, Levels(a), begin, end);
}

}  // namespace

void DualShiftDequantize(const DualShiftDequantizeArgs& a, int64_t begin, int64_t end) {
  switch (a.dtype) {
    case DType::kFloat32: return Run<DType::kFloat32>(a, begin, end);
    case DType::kFloat16: return Run<DType::kFloat16>(a, begin, end);
    default: return Run<DType::kBFloat16>(a, begin, end);
  }
}

}  // namespace generic

DualShiftDequantizeFn PickDualShiftDequantize() {
  using Fn = DualShiftDequantizeFn;
#if PRISM_X86
  return Pick<Fn>("dual_shift_dequantize",
                  {generic::DualShiftDequantize, avx2::DualShiftDequantize, avx512::DualShiftDequantize, nullptr});
#else
  return Pick<Fn>("dual_shift_dequantize", {generic::DualShiftDequantize});
#endif
}

}  // namespace prism::cpu
