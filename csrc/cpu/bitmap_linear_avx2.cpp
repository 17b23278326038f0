// Both halves of a panel at a time: kept values are shuffled to their places, float32 products.
#include "bitmap_linear.h"

#if PRISM_X86
#include "expand_avx2.h"
#include "quad_avx2.h"

PRISM_TARGET_BEGIN(PRISM_TARGET_AVX2)
namespace prism::cpu::avx2 {
namespace {

template <DType kDType>
class BitmapPairs {
 public:
  static constexpr int kUnit = 1, kStrips = kPanelStrips, kBytes = kDType == DType::kFloat32 ? 4 : 2;
  static constexpr bool kSingles = false;
  static constexpr int64_t kUnitBytes = 32 * kBytes + 32;  // read at most, from where a pair begins
  struct Block {
    Floats column[2];
  };
  using Guard = GuardedStream<kUnitBytes>;

  BitmapPairs(const BitmapValues& weight, int64_t panel, Guard* guard)
      : bitmap_(weight.PanelBitmap(panel)), position_(weight.panel_offsets[panel] * kBytes), guard_(guard) {}

  void StartGroup(const Ints (&)[kStrips], int64_t) {}

  template <int kIndex>
  PRISM_INLINE Block Step(int strip) {
    if (strip == 0) {
      at_ = guard_->At(position_);
      Prefetch(at_ + kPrefetchBytes);
    }
    const uint8_t first = bitmap_[2 * strip], second = bitmap_[2 * strip + 1];  // four rows each
    const uint8_t* next = at_ + kBytes * _mm_popcnt_u32(first);
    const Block block = Expand(first, at_, second, next);
    const uint8_t* end = next + kBytes * _mm_popcnt_u32(second);
    position_ += end - at_;
    at_ = end;
    return block;
  }

  template <int kCount>
  PRISM_INLINE void Advance() {
    bitmap_ += kPairMaskBytes;
    Prefetch(bitmap_ + 1024);
  }

 private:
  static constexpr int64_t kPrefetchBytes = 8192;

  static PRISM_INLINE Block Expand(uint8_t first, const uint8_t* at, uint8_t second, const uint8_t* next) {
    if constexpr (kDType == DType::kFloat32) {
      return Columns(ExpandDwords(first, at), ExpandDwords(second, next));
    } else if constexpr (kDType == DType::kFloat16) {
      return Columns(_mm256_cvtph_ps(ExpandWords(first, at)), _mm256_cvtph_ps(ExpandWords(second, next)));
    } else {
      const Ints words = _mm256_inserti128_si256(_mm256_castsi128_si256(ExpandWords(first, at)),
                                                 ExpandWords(second, next), 1);
      return {{_mm256_castsi256_ps(_mm256_slli_epi32(words, 16)),
               _mm256_castsi256_ps(_mm256_and_si256(words, _mm256_set1_epi32(static_cast<int>(0xffff0000))))}};
    }
  }

  // Four rows of both columns each -> eight rows of either.
  static PRISM_INLINE Block Columns(Floats first, Floats second) {
    const __m256d even = _mm256_castps_pd(_mm256_shuffle_ps(first, second, 0x88));
    const __m256d odd = _mm256_castps_pd(_mm256_shuffle_ps(first, second, 0xdd));
    return {{_mm256_castpd_ps(_mm256_permute4x64_pd(even, 0xd8)), _mm256_castpd_ps(_mm256_permute4x64_pd(odd, 0xd8))}};
  }

  const uint8_t* bitmap_;
  int64_t position_;
  Guard* guard_;
  const uint8_t* at_ = nullptr;
};

struct Float32Values : Float32 {
  static constexpr int kParts = 2;
  using Zero = Ints;
  static PRISM_INLINE Ints Prepare(Ints zero) { return zero; }
  template <int kPart, class Block>
  PRISM_INLINE Floats Decode(const Block& block, Ints) const { return block.column[kPart]; }
};

#include "quad_linear_arrange.inc"
#include "quad_linear_tile.inc"
#include "bitmap_linear_run.inc"

}  // namespace

const BitmapLinearKernel kBitmapLinear = {Arrange<Arithmetic::kFloat32>, RunDTypes<Float32Values>, 4, kWidths, kWidths};

}  // namespace prism::cpu::avx2
PRISM_TARGET_END
#endif
