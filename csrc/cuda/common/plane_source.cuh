// Bit planes of dual-shift codes (common/panels.h) as a Source of panel_mma.cuh: a block of 32 columns is `bits` vectors of
// 64 bytes, 4 bytes per row, of which a lane reads those of its two quads and two rows, 8 bytes at a time.
//
// Of 4-bit codes vector t is a lane's eight columns: ((w >> s) & 0x000f000f) is the pair (0, 1), (4, 5), (2, 3), (6, 7) for
// s = 0, 4, 8, 12. Other widths take quads: bytes of codes out of a low and perhaps a high plane.
#pragma once
#include "panel_codes.cuh"

namespace prism::cuda {

enum class PlaneKind {
  kNibbles,  // 4 bits, uniform
  kPlanes,   // 2, 3, 5 and 6 bits, uniform
  kBytes,    // 8 bits, uniform
  kLevels,   // nf4 and nf3
};

struct PlaneArgs {
  const uint8_t* codes;  // [panels, blocks, bits, 64], aligned to 8 bytes
  int64_t blocks;
  GroupGrid::Args grid;
  LevelBytes levels;  // of kLevels
};

template <PlaneKind kKind>
class PlaneSource {
 public:
  using Args = PlaneArgs;
  static constexpr bool kScaled = true;
  static constexpr int kSharedBytes = 0;
  static constexpr int kFewWarps = kKind == PlaneKind::kNibbles ? 16 : 12;

  struct Words {
    GroupGrid::Words grid;
    uint2 low, high;  // rows 2g and 2g + 1; high: of kBytes the second quad, unused of kNibbles
  };

  __device__ PlaneSource(const Args& a, int64_t panel, int begin, int, unsigned char*)
      : a_(a), grid_(a.grid, panel), bits_(a.grid.bits) {
    const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    low_ = a.codes + (panel * a.blocks + begin) * BlockBytes() + 8 * g;
    if constexpr (kKind == PlaneKind::kNibbles) low_ += t * kQuadBytes;
    if constexpr (kKind == PlaneKind::kBytes) low_ += 2 * t * kQuadBytes;
    if constexpr (kKind == PlaneKind::kPlanes || kKind == PlaneKind::kLevels) {
      widths_ = PlaneWidthsOf(a.grid.bits);
      const auto place = [&](int width, int& shift) {  // of quad 2t, in a plane of this width
        const int per_vector = 8 / width;
        shift = 2 * t % per_vector * width;
        return 2 * t / per_vector * static_cast<int>(kQuadBytes);
      };
      if (widths_.high != 0) high_offset_ = widths_.low * static_cast<int>(kQuadBytes) + place(widths_.high, high_shift_);
      const int offset = place(widths_.low, low_shift_);
      low_ += offset;
      high_offset_ -= offset;
    }
  }

  __device__ void Load(int block, Words& words) {
    grid_.template Load<kKind != PlaneKind::kLevels>(block, words.grid);
    words.low = LoadOnce8(low_);
    if constexpr (kKind == PlaneKind::kBytes) {
      words.high = LoadOnce8(low_ + kQuadBytes);
    } else if constexpr (kKind != PlaneKind::kNibbles) {
      words.high = make_uint2(0, 0);
      if (widths_.high != 0) words.high = LoadOnce8(low_ + high_offset_);
    }
    low_ += BlockBytes();
  }

  template <class Arithmetic>
  __device__ DenseFragment Decode(int, const Words& words) const {
    DenseFragment fragment;
#pragma unroll
    for (int row = 0; row < 2; ++row) {
      uint2 first, second;
      DecodeRow<Arithmetic>(words, row, first, second);
      fragment.a[0][row] = first.x, fragment.a[0][row + 2] = first.y;
      fragment.a[1][row] = second.x, fragment.a[1][row + 2] = second.y;
    }
    return fragment;
  }

  __device__ void Scales(const Words& words, float (&scale)[2]) const { GroupGrid::Scales(words.grid, scale); }

 private:
  __device__ int BlockBytes() const {
    return (kKind == PlaneKind::kNibbles ? 4 : kKind == PlaneKind::kBytes ? 8 : bits_) * static_cast<int>(kQuadBytes);
  }

  // Pairs of columns (0, 1), (2, 3) and (4, 5), (6, 7) of row 2g + `row`.
  template <class Arithmetic>
  __device__ void DecodeRow(const Words& words, int row, uint2& first, uint2& second) const {
    const uint32_t low = row == 0 ? words.low.x : words.low.y, high = row == 0 ? words.high.x : words.high.y;
    if constexpr (kKind == PlaneKind::kNibbles) {
      const uint32_t minus_zero = MinusZero<Arithmetic>(GroupGrid::Zeros(words.grid, true), row);
      const auto pair = [&](int shift) { return CodePair<Arithmetic>(low >> shift, 0x000f000fu, minus_zero); };
      first = make_uint2(pair(0), pair(8));
      second = make_uint2(pair(4), pair(12));
    } else if constexpr (kKind == PlaneKind::kBytes) {
      first = BytePairs<Arithmetic>(low, words.grid.zeros, row);
      second = BytePairs<Arithmetic>(high, words.grid.zeros, row);
    } else {
      const uint32_t low_mask = ((1u << widths_.low) - 1u) * 0x01010101u, high_mask = ((1u << widths_.high) - 1u) * 0x01010101u;
      const auto quad = [&](int which) {
        return (low >> (low_shift_ + which * widths_.low) & low_mask) |
               (high >> (high_shift_ + which * widths_.high) & high_mask) << widths_.low;
      };
      if constexpr (kKind == PlaneKind::kLevels) {
        first = LevelPairs(quad(0), a_.levels);
        second = LevelPairs(quad(1), a_.levels);
      } else {
        const uint32_t minus_zero = MinusZero<Arithmetic>(GroupGrid::Zeros(words.grid, bits_ <= 4), row);
        first = QuadPairs<Arithmetic>(quad(0), minus_zero);
        second = QuadPairs<Arithmetic>(quad(1), minus_zero);
      }
    }
  }

  const Args& a_;
  GroupGrid grid_;
  const int bits_;
  const uint8_t* low_;
  PlaneWidths widths_ = {0, 0};
  int high_offset_ = 0, low_shift_ = 0, high_shift_ = 0;
};

}  // namespace prism::cuda
