// Pairs of columns behind a bitmap as a source of steps for the AVX-512 linears: kept values are expanded to their
// places, then stay 16-bit pairs (RawPair) or become two vectors of float32, one per column (FloatPair).
#pragma once
#include "bitmap_linear.h"
#include "expand_avx512.h"
#include "quad_avx512.h"

#if PRISM_X86
PRISM_TARGET_BEGIN(PRISM_TARGET_AVX512)
namespace prism::cpu::avx512 {

// The steps of one panel; Expand turns the values at `at` behind a mask into a Block.
template <int kValueBytes, class Expand>
class BitmapSteps {
 public:
  static constexpr int kUnit = 8, kStrips = 1, kBytes = kValueBytes;
  static constexpr bool kSingles = true;
  static constexpr int64_t kUnitBytes = kUnit * 32 * kBytes + 64;  // read at most, from where a unit begins
  using Block = typename Expand::Block;
  using Guard = GuardedStream<kUnitBytes>;

  BitmapSteps(const BitmapValues& weight, int64_t panel, Guard* guard)
      : bitmap_(weight.PanelBitmap(panel)), values_(weight.values), position_(weight.panel_offsets[panel] * kBytes),
        last_(weight.size * kBytes - kUnitBytes), guard_(guard) {}

  void StartGroup(const Ints (&)[1], int64_t) {}

  template <int kIndex>
  PRISM_INLINE Block Step(int) {
    if constexpr (kIndex == 0) at_ = begin_ = position_ <= last_ ? values_ + position_ : guard_->At(position_);
    const uint32_t mask = LoadMask<uint32_t>(bitmap_ + kIndex * kPairMaskBytes);
    const Block block = Expand::Get(mask, at_);
    at_ += kBytes * _mm_popcnt_u32(mask);
    return block;
  }

  template <int kCount>
  PRISM_INLINE void Advance() {
    position_ += at_ - begin_;
    bitmap_ += kCount * kPairMaskBytes;
    const uint8_t* ahead = values_ + position_ + kPrefetchBytes;  // may lie behind the stream: only ever prefetched
    Unroll<2 * kBytes>([&](auto i) PRISM_INLINE { Prefetch(ahead + i * 64); });  // what half of kUnit pairs take
    Prefetch(bitmap_ + kPrefetchBytes / 8);
  }

 private:
  static constexpr int64_t kPrefetchBytes = 2048;  // 16 KB ahead pushes activations out of a first cache of 32

  const uint8_t *bitmap_, *values_;
  int64_t position_, last_;
  Guard* guard_;
  const uint8_t *at_ = nullptr, *begin_ = nullptr;
};

struct RawPair {
  using Block = Ints;
  static PRISM_INLINE Ints Get(uint32_t mask, const uint8_t* at) { return ExpandWords(mask, _mm512_loadu_si512(at)); }
};

template <DType kDType>
struct FloatPair {
  struct Block {
    Floats column[2];
  };
  static PRISM_INLINE Block Get(uint32_t mask, const uint8_t* at) {
    if constexpr (kDType == DType::kFloat32) {
      const auto upper = static_cast<__mmask16>(mask), lower = static_cast<__mmask16>(mask >> 16);  // rows from 0, from 8
      const Ints a = ExpandDwords(upper, _mm512_loadu_si512(at));
      const Ints b = ExpandDwords(lower, _mm512_loadu_si512(at + 4 * _mm_popcnt_u32(upper)));
      const Ints even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
      const Ints odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
      return {{_mm512_castsi512_ps(_mm512_permutex2var_epi32(a, even, b)),
               _mm512_castsi512_ps(_mm512_permutex2var_epi32(a, odd, b))}};
    } else {
      const Ints words = RawPair::Get(mask, at);
      if constexpr (kDType == DType::kFloat16) {
        return {{_mm512_cvtph_ps(_mm512_cvtepi32_epi16(words)),
                 _mm512_cvtph_ps(_mm512_cvtepi32_epi16(_mm512_srli_epi32(words, 16)))}};
      } else {
        return {{_mm512_castsi512_ps(_mm512_slli_epi32(words, 16)),
                 _mm512_castsi512_ps(_mm512_and_si512(words, _mm512_set1_epi32(static_cast<int>(0xffff0000))))}};
      }
    }
  }
};

struct Float32Values : Float32 {
  static constexpr int kParts = 2;
  using Zero = Ints;
  static PRISM_INLINE Ints Prepare(Ints zero) { return zero; }
  template <int kPart, class Block>
  PRISM_INLINE Floats Decode(const Block& block, Ints) const { return block.column[kPart]; }
};

}  // namespace prism::cpu::avx512
PRISM_TARGET_END
#endif
