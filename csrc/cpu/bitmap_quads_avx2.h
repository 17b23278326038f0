// Quads behind a bitmap as a source of steps for the AVX2 linears: 8 places at a time, bit deposits put codes into the
// bytes that the mask keeps; zero points fill the others.
#pragma once
#include "bitmap_dual_shift_linear.h"
#include "quad_avx2.h"

#if PRISM_X86
PRISM_TARGET_BEGIN(PRISM_TARGET_AVX2)
namespace prism::cpu::avx2 {

template <int kBits>
class BitmapQuads {
 public:
  static constexpr int kUnit = 1, kStrips = kPanelStrips;
  static constexpr bool kSingles = false;
  static constexpr int64_t kUnitBytes = 8 * kBits + 8;  // read at most, from where a quad begins
  using Block = Ints;
  using Guard = GuardedStream<kUnitBytes>;

  BitmapQuads(const BitmapCodes& weight, const QuadGrid& grid, int64_t panel, Guard* guard)
      : bitmap_(weight.PanelBitmap(panel)), position_(weight.panel_offsets[panel]), guard_(guard),
        levels_(grid.codebook != Codebook::kUniform) {
    std::memset(fill_, grid.ZeroLevel(), sizeof fill_);
  }

  PRISM_INLINE void StartGroup(const Ints (&zeros)[kStrips], int64_t) {
    if (levels_) return;
    for (int s = 0; s < kStrips; ++s) {
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(fill_ + 4 * s),
                          _mm256_mullo_epi32(zeros[s], _mm256_set1_epi32(0x01010101)));
    }
  }

  template <int kIndex>
  PRISM_INLINE Ints Step(int strip) {
    if (strip == 0) Decode();
    return LoadInts(places_ + 4 * strip);
  }

  template <int kCount>
  PRISM_INLINE void Advance() {
    bitmap_ += kQuadMaskBytes;
    Prefetch(bitmap_ + 1024);
  }

 private:
  static constexpr uint64_t kEveryByte = 0x0101010101010101;

  PRISM_INLINE void Decode() {
    const uint8_t* codes = guard_->At(position_);
    Prefetch(codes + 8192);
    int64_t bit = 0;
    Unroll<8>([&](auto i) PRISM_INLINE {
      const uint64_t kept = _pdep_u64(bitmap_[i], kEveryByte) * 255;
      uint64_t stream;
      std::memcpy(&stream, codes + (bit >> 3), sizeof stream);
      const uint64_t values = _pdep_u64(stream >> (bit & 7), kept & (kEveryByte * ((1 << kBits) - 1)));
      places_[i] = values | (fill_[i] & ~kept);
      bit += kBits * _mm_popcnt_u32(bitmap_[i]);
    });
    position_ += (bit + 7) >> 3;
  }

  const uint8_t* bitmap_;
  int64_t position_;
  Guard* guard_;
  bool levels_;
  alignas(32) uint64_t fill_[8], places_[8];
};

}  // namespace prism::cpu::avx2
PRISM_TARGET_END
#endif
