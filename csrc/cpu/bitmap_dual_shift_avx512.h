// What the AVX-512 kernels over bitmap codes share: rows as streams that may be read without bounds, and their grid.
#pragma once
#include <cstring>
#include <vector>

#include "bitmap_dual_shift.h"
#include "codes_avx512.h"
#include "unroll.h"

#if PRISM_X86
PRISM_TARGET_BEGIN(PRISM_TARGET_AVX512)
namespace prism::cpu::avx512 {
PRISM_DEFINE_UNROLL


// Codes at `mask`, taken in order from the low bytes of `codes`; the bytes of `fill` elsewhere. The empty asm keeps the
// copy of `fill` in front of the expansion: it breaks the dependency of vpexpandb on the old value of its destination.
static inline __m512i ExpandOnto(__m512i fill, __mmask64 mask, __m512i codes) {
  asm("" : "+v"(fill));
  return _mm512_mask_expand_epi8(fill, mask, codes);
}

constexpr int64_t kGridGroups = 256;
constexpr int64_t kGridStride = kGridGroups + 64;  // vectors may be read from any group on
constexpr int64_t kPrefetchBytes = 8192;  // at least; always past the rows in flight

// What kRows rows in flight need beside their codes: up to kGridGroups groups at a time, scales as float32 and zeros
// (or the code of level 0) as bytes, at fixed distances that fold into addresses.
template <int kRows>
class Grid {
 public:
  explicit Grid(const BitmapDualShift& w) : w_(w), unpacker_(w.bits), streams_(w.Streams(kRows)) {
    std::memset(zero, w.zero_level, sizeof zero);
  }

  // Groups group ... group + kGridGroups - 1 (a multiple of kGridGroups) of rows row ... row + kRows - 1.
  void Load(int64_t row, int64_t group) {
    const int64_t count = std::min(kGridGroups, w_.num_groups - group);
    const int64_t zero_bytes = PackedBytes(w_.num_groups, w_.bits) - group / 8 * w_.bits;
    for (int r = 0; r < kRows; ++r) {
      const uint16_t* row_scale = w_.RowScale(row + r) + group;
      for (int64_t g = 0; g < count; g += 16) _mm512_storeu_ps(scale[r] + g, LoadBFloat16(row_scale + g, count - g));
      if (w_.levels != nullptr) continue;
      const uint8_t* row_zero = w_.RowZero(row + r) + group / 8 * w_.bits;
      for (int64_t g = 0; g < count; g += 64) {
        const int64_t skip = g / 8 * w_.bits;
        _mm512_storeu_si512(zero[r] + g, unpacker_.Load(row_zero + skip, zero_bytes - skip));
      }
    }
  }

  const uint8_t* Stream(int slot, int64_t row) { return streams_.Get(slot, w_.row_offsets[row]); }

  alignas(64) float scale[kRows][kGridStride] = {};
  alignas(64) uint8_t zero[kRows][kGridStride];

 private:
  const BitmapDualShift& w_;
  Unpacker unpacker_;
  RowStreams streams_;
};

// Touches what the rows after these will read, evenly over the blocks of these: the hardware follows streams too late.
class Prefetcher {
 public:
  Prefetcher(const BitmapDualShift& w, int64_t row, int64_t num_rows) {
    const int64_t blocks = std::max<int64_t>(NumBlocks(w.k), 1);
    const int64_t bytes = w.row_offsets[row + num_rows] - w.row_offsets[row];
    codes_ = reinterpret_cast<uintptr_t>(w.codes) + w.row_offsets[row] + std::max(bytes, kPrefetchBytes);
    codes_step_ = CeilDiv(bytes, blocks);
    bitmap_ = reinterpret_cast<uintptr_t>(w.RowBitmap(row)) + std::max(num_rows * 8 * blocks, kPrefetchBytes / 2);
    bitmap_step_ = num_rows * 8;
  }
  void Next() {
    _mm_prefetch(reinterpret_cast<const char*>(codes_), _MM_HINT_T0);
    if (codes_step_ > 64) _mm_prefetch(reinterpret_cast<const char*>(codes_ + 64), _MM_HINT_T0);
    _mm_prefetch(reinterpret_cast<const char*>(bitmap_), _MM_HINT_T0);
    codes_ += codes_step_;
    bitmap_ += bitmap_step_;
  }

 private:
  uintptr_t codes_, bitmap_;  // integers: the addresses may lie behind the buffers
  int64_t codes_step_, bitmap_step_;
};

// 64 codes as bytes -> steps (q - z) or level[q] of columns 16 * part ... + 15, as float32.
class Steps {
 public:
  explicit Steps(const BitmapDualShift& w) {
    float table[16] = {};
    if (w.levels != nullptr) std::copy_n(w.levels, 1 << w.bits, table);
    table_ = _mm512_loadu_ps(table);
  }

  // `zero` are the zero points of the 64 columns; codes of pruned columns equal them, or are the code of level 0.
  template <bool kLevels, int kPart>
  __m512 Get(__m512i codes, __m512i zero) const {
    const __m512i index = _mm512_cvtepu8_epi32(_mm512_extracti32x4_epi32(codes, kPart));
    if constexpr (kLevels) return _mm512_permutexvar_ps(index, table_);
    return _mm512_cvtepi32_ps(_mm512_sub_epi32(index, _mm512_cvtepu8_epi32(_mm512_extracti32x4_epi32(zero, kPart))));
  }

 private:
  __m512 table_;
};

struct Block {
  __m512 part[4];  // 64 columns
};

// Decodes rows block by block into float32, without the column scale, for any group size.
class RowDecoder {
 public:
  explicit RowDecoder(const BitmapDualShift& w)
      : w_(w), grid_(w), unpacker_(w.bits), steps_(w), columns_(NumBlocks(w.k) * kBlock) {
    if (w.GroupsAreBlocks()) return;
    scale_.resize(static_cast<size_t>(columns_));
    zero_.resize(static_cast<size_t>(columns_));
  }

  // sink(j, block) for the columns j ... j + 63 of each block; pruned and padding 0.
  template <class Sink>
  void Decode(int64_t row, Sink sink) {
    const bool levels = w_.levels != nullptr;
    if (w_.GroupsAreBlocks()) return levels ? DecodeRow<true, true>(row, sink) : DecodeRow<true, false>(row, sink);
    SpreadGrid(row);
    levels ? DecodeRow<false, true>(row, sink) : DecodeRow<false, false>(row, sink);
  }

 private:
  template <bool kBlockGroups, bool kLevels, class Sink>
  void DecodeRow(int64_t row, Sink& sink) {
    const uint8_t *codes = grid_.Stream(0, row), *bitmap = w_.RowBitmap(row);
    const int64_t blocks_per_group = CeilDiv(w_.group_size, kBlock);
    __m512i zero = _mm512_setzero_si512();
    __m512 scale = _mm512_setzero_ps();
    int64_t group = 0, left = 0;
    for (int64_t j = 0; j < columns_; j += kBlock, bitmap += 8) {
      if constexpr (!kBlockGroups) {
        zero = _mm512_loadu_si512(zero_.data() + j);
      } else if (left-- == 0) {
        if (group % kGridGroups == 0) grid_.Load(row, group);
        zero = _mm512_set1_epi8(static_cast<char>(grid_.zero[0][group % kGridGroups]));
        scale = _mm512_set1_ps(grid_.scale[0][group % kGridGroups]);
        left = blocks_per_group - 1;
        ++group;
      }
      uint64_t mask;
      std::memcpy(&mask, bitmap, sizeof mask);
      const __m512i columns = ExpandOnto(zero, mask, unpacker_.Load(codes, kBlock));
      codes += PackedBytes(static_cast<int64_t>(_mm_popcnt_u64(mask)), w_.bits);
      Block block;
      Unroll<4>([&](auto part) PRISM_INLINE {
        if constexpr (!kBlockGroups) scale = _mm512_loadu_ps(scale_.data() + j + 16 * part);
        block.part[part] = _mm512_mul_ps(steps_.Get<kLevels, part>(columns, zero), scale);
      });
      sink(j, block);
    }
  }

  void SpreadGrid(int64_t row) {
    for (int64_t g = 0; g < w_.num_groups; ++g) {
      if (g % kGridGroups == 0) grid_.Load(row, g);
      const int64_t begin = g * w_.group_size, end = std::min(begin + w_.group_size, w_.k);
      std::fill(scale_.data() + begin, scale_.data() + end, grid_.scale[0][g % kGridGroups]);
      std::fill(zero_.data() + begin, zero_.data() + end, grid_.zero[0][g % kGridGroups]);
    }
  }

  const BitmapDualShift& w_;
  Grid<1> grid_;
  Unpacker unpacker_;
  Steps steps_;
  int64_t columns_;
  std::vector<float> scale_;
  std::vector<uint8_t> zero_;
};

}  // namespace prism::cpu::avx512
PRISM_TARGET_END
#endif
