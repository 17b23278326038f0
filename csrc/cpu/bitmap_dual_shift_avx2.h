// The AVX2 decoder of bitmap codes: a row's codes are spread to bytes, then 8 columns at a time a byte shuffle, looked
// up by the 8 bits of the mask, puts each code at its column and the zero point at pruned ones, so that they decode to
// 0.
#pragma once
#include "bitmap_dual_shift.h"
#include "isa.h"

#if PRISM_X86
#include <immintrin.h>

PRISM_TARGET_BEGIN(PRISM_TARGET_AVX2)
namespace prism::cpu::avx2 {

// Tables of one call, by the mask of 8 columns and by the width of the codes.
class Decoder {
 public:
  explicit Decoder(const BitmapDualShift& w) : bits_(w.bits), code_mask_(0x0101010101010101ull * ((1u << w.bits) - 1)) {
    for (int mask = 0; mask < 256; ++mask) {
      for (int column = 0, rank = 0; column < 8; ++column) {
        order_[mask][column] = static_cast<uint8_t>(mask >> column & 1 ? rank++ : 8 + column);
      }
    }
    if (w.levels != nullptr) std::copy_n(w.levels, 1 << w.bits, levels_);
  }

  // All codes of a row: those of block b in stream order from bytes[64 * b]. A whole row before any of it is read,
  // because reading across two stores that are still in flight stalls.
  void SpreadRow(const BitmapDualShift& w, int64_t row, const uint8_t* stream, uint8_t* bytes) const {
    const uint8_t* bitmap = w.RowBitmap(row);
    for (int64_t b = NumBlocks(w.k); b > 0; --b, bitmap += 8, bytes += kBlock) {
      _mm_prefetch(stream + kPrefetchBytes, _MM_HINT_T0);
      uint64_t mask;
      std::memcpy(&mask, bitmap, sizeof mask);
      Spread(stream, bytes);
      stream += PackedBytes(static_cast<int64_t>(_mm_popcnt_u64(mask)), bits_);
    }
  }

  // 8 columns as integers: the codes at `bytes` where `mask` keeps, the low 8 bytes of `fill` where it prunes.
  __m256i Columns(const uint8_t* bytes, uint8_t mask, __m128i fill) const {
    const __m128i codes = _mm_unpacklo_epi64(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(bytes)), fill);
    const __m128i order = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(order_[mask]));
    return _mm256_cvtepu8_epi32(_mm_shuffle_epi8(codes, order));
  }

  __m256 Level(__m256i columns) const {
    const __m256 low = _mm256_permutevar8x32_ps(_mm256_loadu_ps(levels_), columns);
    const __m256 high = _mm256_permutevar8x32_ps(_mm256_loadu_ps(levels_ + 8), columns);
    return _mm256_blendv_ps(low, high, _mm256_castsi256_ps(_mm256_slli_epi32(columns, 28)));  // bit 3 chooses
  }

 private:
  static constexpr int64_t kPrefetchBytes = 4096;

  // 64 codes as bytes; reads 8 * bits bytes.
  void Spread(const uint8_t* stream, uint8_t* bytes) const {
    if (bits_ == 4) {
      const __m256i low = _mm256_set1_epi8(0x0f);
      for (int half = 0; half < 2; ++half) {
        const __m256i pairs = _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(stream) + half));
        const __m256i codes = _mm256_and_si256(_mm256_or_si256(pairs, _mm256_slli_epi16(pairs, 4)), low);
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(bytes) + half, codes);
      }
      return;
    }
    for (int i = 0; i < 8; ++i) {
      uint64_t word;
      std::memcpy(&word, stream + i * bits_, sizeof word);
      word = _pdep_u64(word, code_mask_);
      std::memcpy(bytes + 8 * i, &word, sizeof word);
    }
  }

  int bits_;
  uint64_t code_mask_;
  alignas(8) uint8_t order_[256][8];
  float levels_[16] = {};
};

// The zero point, or the code of level 0, of one group.
inline uint32_t GroupZero(const BitmapDualShift& w, int64_t row, int64_t group) {
  return w.levels != nullptr ? static_cast<uint32_t>(w.zero_level) : CodeAt(w.RowZero(row), group, w.bits);
}

// Decodes rows into float32, without the column scale, for any group size: per column its zero and its scale.
class RowDecoder {
 public:
  explicit RowDecoder(const BitmapDualShift& w)
      : w_(w),
        decoder_(w),
        streams_(w.Streams(1)),
        columns_(NumBlocks(w.k) * kBlock),
        scale_(static_cast<size_t>(columns_)),
        zero_(scale_.size()),
        fill_(scale_.size()),
        codes_(scale_.size() + 8) {}

  // out [NumBlocks(k) * 64], pruned and padding 0.
  void Decode(int64_t row, float* out) {
    SpreadGrid(row);
    decoder_.SpreadRow(w_, row, streams_.Get(0, w_.row_offsets[row]), codes_.data());
    if (w_.levels != nullptr) {
      DecodeRow<true>(row, out);
    } else {
      DecodeRow<false>(row, out);
    }
  }

 private:
  template <bool kLevels>
  void DecodeRow(int64_t row, float* out) {
    const uint8_t *bitmap = w_.RowBitmap(row), *codes = codes_.data();
    for (int64_t j = 0; j < columns_; bitmap += 8, codes += kBlock) {
      int64_t rank = 0;
      for (int byte = 0; byte < 8; ++byte, j += 8) {
        const __m128i fill = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(fill_.data() + j));
        const __m256i columns = decoder_.Columns(codes + rank, bitmap[byte], fill);
        rank += _mm_popcnt_u32(bitmap[byte]);
        const __m256 step = kLevels ? decoder_.Level(columns)
                                    : _mm256_sub_ps(_mm256_cvtepi32_ps(columns), _mm256_loadu_ps(zero_.data() + j));
        _mm256_storeu_ps(out + j, _mm256_mul_ps(step, _mm256_loadu_ps(scale_.data() + j)));
      }
    }
  }

  // Runs of whole blocks are cut into constant lengths, which compile to a few vector stores.
  void SpreadGrid(int64_t row) {
    const int64_t run = w_.GroupsAreBlocks() ? kBlock : w_.group_size;
    for (int64_t g = 0; g < w_.num_groups; ++g) {
      const uint32_t zero = GroupZero(w_, row, g);
      const float scale = BFloat16ToFloat(w_.RowScale(row)[g]), step = static_cast<float>(zero);
      const int64_t end = std::min((g + 1) * w_.group_size, w_.k);
      for (int64_t j = g * w_.group_size; j < end; j += run) {
        if (run == kBlock) {
          std::fill_n(scale_.data() + j, kBlock, scale);
          std::fill_n(zero_.data() + j, kBlock, step);
          std::memset(fill_.data() + j, static_cast<int>(zero), kBlock);
        } else {
          std::fill(scale_.data() + j, scale_.data() + end, scale);
          std::fill(zero_.data() + j, zero_.data() + end, step);
          std::fill(fill_.data() + j, fill_.data() + end, static_cast<uint8_t>(zero));
        }
      }
    }
  }

  const BitmapDualShift& w_;
  Decoder decoder_;
  RowStreams streams_;
  int64_t columns_;
  std::vector<float> scale_, zero_;
  std::vector<uint8_t> fill_, codes_;
};

}  // namespace prism::cpu::avx2
PRISM_TARGET_END
#endif
