// Quads behind a bitmap as a source of steps for the AVX-512 linears: a quad's codes are spread to bytes and expanded to
// their places onto a register of zero points.
#pragma once
#include "bitmap_dual_shift_linear.h"
#include "quad_avx512.h"

#if PRISM_X86
PRISM_TARGET_BEGIN(PRISM_TARGET_AVX512)
namespace prism::cpu::avx512 {

// The bits set in eight bytes. As an instruction of its own, because compilers put a clearing of the result in front.
static PRISM_INLINE inline uint64_t PopCount(const uint8_t* mask) {
  uint64_t count;
  asm("popcnt %1, %0" : "=r"(count) : "m"(*reinterpret_cast<const uint8_t(*)[8]>(mask)) : "cc");
  return count;
}

// 64 bytes whose low kBits are the next codes; kClean: whether the other bits are 0.
template <int kBits>
struct SpreadCodes {
  static constexpr bool kClean = false;
  SpreadCodes() {
    alignas(64) uint8_t spread[64], shifts[64];
    for (int i = 0; i < 64; ++i) {
      spread[i] = static_cast<uint8_t>((i / 8) * kBits + (i % 8) % kBits);
      shifts[i] = static_cast<uint8_t>((i % 8) * kBits);
    }
    spread_ = _mm512_load_si512(spread);
    shifts_ = _mm512_load_si512(shifts);
  }
  PRISM_INLINE Ints Load(const uint8_t* codes) const {
    return _mm512_multishift_epi64_epi8(shifts_, _mm512_permutexvar_epi8(spread_, _mm512_loadu_si512(codes)));
  }

 private:
  Ints spread_, shifts_;
};

template <>
struct SpreadCodes<4> {
  static constexpr bool kClean = true;
  SpreadCodes() : low_(_mm512_set1_epi8(15)) {}
  PRISM_INLINE Ints Load(const uint8_t* codes) const {
    const Ints pairs = _mm512_cvtepu8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes)));
    return _mm512_ternarylogic_epi32(pairs, _mm512_slli_epi16(pairs, 4), low_, 0xa8);  // (a | b) & c
  }

 private:
  Ints low_;
};

template <>
struct SpreadCodes<8> {
  static constexpr bool kClean = true;
  static PRISM_INLINE Ints Load(const uint8_t* codes) { return _mm512_loadu_si512(codes); }
};

template <int kBits>
class BitmapQuads {
 public:
  static constexpr int kUnit = 4, kStrips = 1;
  static constexpr bool kSingles = true;
  static constexpr int64_t kUnitBytes = kUnit * 8 * kBits + 64;  // read at most, from where a unit begins
  static constexpr bool kClean = SpreadCodes<kBits>::kClean;
  using Block = Ints;
  using Guard = GuardedStream<kUnitBytes>;

  BitmapQuads(const BitmapCodes& weight, const QuadGrid& grid, int64_t panel, Guard* guard)
      : bitmap_(weight.PanelBitmap(panel)), codes_(weight.codes), position_(weight.panel_offsets[panel]),
        last_(weight.size - kUnitBytes), guard_(guard), levels_(grid.codebook != Codebook::kUniform),
        fill_(_mm512_set1_epi8(static_cast<char>(grid.ZeroLevel()))) {}

  PRISM_INLINE void StartGroup(const Ints (&zeros)[1], int64_t) {
    if (!levels_) fill_ = RepeatByte(zeros[0]);
  }

  template <int kIndex>
  PRISM_INLINE Ints Step(int) {
    if constexpr (kIndex == 0) at_ = begin_ = position_ <= last_ ? codes_ + position_ : guard_->At(position_);
    const uint64_t mask = LoadMask<uint64_t>(bitmap_ + kIndex * kQuadMaskBytes);
    // The empty asm keeps the copy of `fill_` in front of the expansion: it breaks the dependency of vpexpandb on the
    // old value of its destination.
    Ints fill = fill_;
    asm("" : "+v"(fill));
    const Ints quad = _mm512_mask_expand_epi8(fill, mask, spread_.Load(at_));
    at_ += (PopCount(bitmap_ + kIndex * kQuadMaskBytes) * kBits + 7) >> 3;
    return quad;
  }

  template <int kCount>
  PRISM_INLINE void Advance() {
    position_ += at_ - begin_;
    bitmap_ += kCount * kQuadMaskBytes;
    const uint8_t* ahead = codes_ + position_ + kPrefetchBytes;  // may lie behind the stream: only ever prefetched
    Unroll<kBits / 2>([&](auto i) PRISM_INLINE { Prefetch(ahead + i * 64); });  // what half of kUnit quads take
    Prefetch(bitmap_ + kPrefetchBytes / 4);
  }

 private:
  static constexpr int64_t kPrefetchBytes = 2048;  // 16 KB ahead pushes activations out of a first cache of 32

  const uint8_t *bitmap_, *codes_;
  int64_t position_, last_;
  Guard* guard_;
  bool levels_;
  Ints fill_;
  SpreadCodes<kBits> spread_;
  const uint8_t *at_ = nullptr, *begin_ = nullptr;
};

}  // namespace prism::cpu::avx512
PRISM_TARGET_END
#endif
