// What BitmapMmaKernel multiplies: 16-bit values behind a mask per pair of columns, or codes behind one per quad. A source
// is a warp's walk over one panel; Issue runs ahead of Fragments.
#pragma once
#include "bitmap_expand.cuh"
#include "bitmap_grid.cuh"
#include "bitmap_mma.cuh"

namespace prism::cuda {

// Copies `size` bytes from `from` on, as whole vectors of 16 bytes, to shared memory, and returns where in it they begin (0 to
// 15). `size` is at most kMostBytes; nothing past `stream_end` is read. Up to 15 bytes before `from` are, in the same aligned
// vector.
template <int kMostBytes>
__device__ inline int CopyRange(const uint8_t* from, const uint8_t* stream_end, int size, unsigned char* to) {
  const int skew = static_cast<int>(reinterpret_cast<uintptr_t>(from) % 16), lane = 16 * (static_cast<int>(threadIdx.x) % 32);
  const uint8_t* const own = from + (lane - skew);
  const int end = skew + size - lane;
  const int64_t left = stream_end - from;
  if (left >= size + 15) {  // whole vectors
#pragma unroll
    for (int at = 0; at < kMostBytes + 15; at += 16 * 32) {
      if (at < end) CopyAsync16(to + lane + at, own + at);
    }
  } else {
    const int stop = static_cast<int>(left) + skew - lane;
    for (int at = 0; at < min(end, stop); at += 16 * 32) CopyAsync16(to + lane + at, own + at, min(stop - at, 16));
  }
  return skew;
}

// Brings what a warp will need first, about, to the second-level cache: from share `begin` of `all` on of the bytes
// [position, end) of a stream, at most 8 KB and at most up to share `share_end`.
__device__ inline void PrefetchShare(const uint8_t* stream, int64_t stream_size, int64_t position, int64_t end, int64_t begin,
                                     int64_t share_end, int64_t all) {
  const int64_t size = end - position;
  const int64_t first = max(position + size * begin / all, int64_t{0});
  const int64_t last = min(min(position + size * share_end / all, first + 8192), stream_size);
  for (int64_t at = first + 128 * (threadIdx.x % 32); at < last; at += 128 * 32) PrefetchL2(stream + at);
}

template <int kUnitColumns>
struct ChunkMask {
  Unit<kUnitColumns> unit;
  __device__ int Size(int bits) const { return bits == 16 ? 2 * unit.Count() : unit.Size(bits); }
};

// A lane's masks of a panel: that of unit 32 * chunk + lane, 0 past the last unit.
template <int kUnitColumns>
class MaskReader {
 public:
  __device__ MaskReader(const uint8_t* bitmap, int64_t panel, int64_t units, int chunk) {
    const int64_t unit = static_cast<int64_t>(chunk) * kChunkUnits + threadIdx.x % 32;
    at_ = bitmap + (panel * units + unit) * Unit<kUnitColumns>::kBytes;
    left_ = static_cast<int>(units - unit);
  }
  MaskReader() = default;

  __device__ ChunkMask<kUnitColumns> Next() {
    ChunkMask<kUnitColumns> mask = {};
    if (left_ > 0) {
      if constexpr (kUnitColumns == 2) {
        mask.unit.words[0] = __ldg(reinterpret_cast<const uint32_t*>(at_));
      } else {
        const uint2 words = __ldg(reinterpret_cast<const uint2*>(at_));
        mask.unit.words[0] = words.x;
        mask.unit.words[1] = words.y;
      }
    }
    at_ += kChunkUnits * Unit<kUnitColumns>::kBytes;
    left_ -= kChunkUnits;
    return mask;
  }

 private:
  const uint8_t* at_;
  int left_;
};

// ---- 16-bit values ---------------------------------------------------------------------------------------------------------
class BitmapValuesSource {
 public:
  struct Weight {
    const uint8_t* bitmap;         // [panels, pairs, 4], aligned to 4 bytes
    const uint8_t* values;         // [size / 2] of 16 bits
    const int64_t* panel_offsets;  // [panels + 1]
    int64_t size, pairs;           // size in bytes
    int bits = 16;
  };
  static constexpr bool kOneShape = false, kScaled = false;
  static constexpr int kColumns = 2, kBlocks = 2;  // columns of a unit, blocks of 32 columns of a chunk
  static constexpr int kMasks = 0, kStarts = 128, kData = 192;
  static constexpr int kMostBytes = kChunkUnits * 32 * 2, kStageBytes = kData + kMostBytes + 32, kTableBytes = 16 * 8;

  int64_t panel;
  const uint8_t* at;  // of the survivors of the chunk that is issued next

  static __device__ MaskReader<2> Masks(const Weight& w, int64_t panel, int chunk) { return {w.bitmap, panel, w.pairs, chunk}; }

  // By the mask of the two columns of rows 2g and 2g + 1: selectors of the bytes of two values and a 0 that make each row's
  // pair, and the bits that the first row's survivors take.
  static __device__ void FillTable(const Weight&, unsigned char* table) {
    const uint32_t mask = threadIdx.x;
    if (mask >= 16) return;
    const auto selectors = [](uint32_t kept) { return kept == 0 ? 0x4444u : kept == 1 ? 0x4410u : kept == 2 ? 0x1044u : 0x3210u; };
    const uint32_t first = mask & 3u;
    reinterpret_cast<uint2*>(table)[mask] = make_uint2(selectors(first) | selectors(mask >> 2) << 16, 16u * static_cast<uint32_t>(__popc(first)));
  }


  __device__ void Start(const Weight& w, int64_t own_panel, int chunk, int end, unsigned char* ring, const unsigned char* table) {
    panel = own_panel;
    ring_ = ring;
    table_ = table;
    const uint32_t bit = threadIdx.x % 32 / 4 * 4;
    below_ = (1u << bit) - 1;
    rotation_ = bit - 3;  // eight times the four bits of a lane: an offset in the table
    const int64_t position = 2 * w.panel_offsets[panel];
    at = w.values + min(max(position, int64_t{0}), w.size);
    masks_ = Masks(w, panel, chunk);
    next_ = masks_.Next();
    PrefetchShare(w.values, w.size, position, 2 * w.panel_offsets[panel + 1], chunk, end, CeilDiv(w.pairs, kChunkUnits));
  }

  __device__ void Issue(const Weight& w, int stage) {
    unsigned char* const to = ring_ + stage * kStageBytes;
    const int lane = static_cast<int>(threadIdx.x) % 32, count = next_.unit.Count(), through = ScanOfWarp(count);
    const int size = 2 * __shfl_sync(0xffffffffu, through, 31);
    const int skew = CopyRange<kMostBytes>(at, w.values + w.size, size, to + kData);
    reinterpret_cast<uint32_t*>(to + kMasks)[lane] = next_.unit.words[0];
    reinterpret_cast<uint16_t*>(to + kStarts)[lane] = static_cast<uint16_t>(skew / 2 + through - count);
    at += size;
    next_ = masks_.Next();
  }

  __device__ void StartChunk(const Weight&, int stage) { stage_ = ring_ + stage * kStageBytes; }

  template <class Half>
  __device__ void Fragments(const Weight&, int block, uint32_t (&fragments)[2][4]) const {
    const int t = static_cast<int>(threadIdx.x) % 4;
    const uint4 masks = reinterpret_cast<const uint4*>(stage_ + kMasks)[block * 4 + t];
    const uint2 starts = reinterpret_cast<const uint2*>(stage_ + kStarts)[block * 4 + t];
    const uint32_t mask[4] = {masks.x, masks.y, masks.z, masks.w}, start[2] = {starts.x, starts.y};
#pragma unroll
    for (int pair = 0; pair < 4; ++pair) {
      // The four values from `first` on, wherever they lie: up to three words.
      const uint32_t first = Permute(start[pair / 2], 0, pair % 2 == 0 ? 0x4410 : 0x4432) + static_cast<uint32_t>(__popc(mask[pair] & below_));
      const auto* words = reinterpret_cast<const uint32_t*>(stage_ + kData + (2 * first & ~3u));
      const uint32_t low = __funnelshift_r(words[0], words[1], 16 * first), high = __funnelshift_r(words[1], words[2], 16 * first);
      const uint2 entry = *reinterpret_cast<const uint2*>(table_ + (__funnelshift_r(mask[pair], mask[pair], rotation_) & 120u));
      fragments[pair / 2][pair % 2 * 2] = Permute(low, 0, entry.x);
      fragments[pair / 2][pair % 2 * 2 + 1] = Permute(__funnelshift_rc(low, high, entry.y), 0, entry.x >> 16);
    }
  }

  template <int kTiles>
  __device__ float (&Sums(float (&sums)[kTiles][4], int tile))[4] { return sums[tile]; }
  template <int kTiles>
  __device__ void EndBlock(const Weight&, bool, float (&)[kTiles][4]) {}

 private:
  unsigned char* ring_;
  const unsigned char *stage_, *table_;
  uint32_t below_, rotation_;
  MaskReader<2> masks_;
  ChunkMask<2> next_;
};

// ---- codes -----------------------------------------------------------------------------------------------------------------
struct BitmapCodesWeight {
  const uint8_t* bitmap;         // [panels, quads, 8], aligned to 8 bytes
  const uint8_t* codes;          // [size]
  const int64_t* panel_offsets;  // [panels + 1]
  const uint16_t* scale;         // bfloat16 [panels, groups, 16], aligned to 16 bytes
  const uint8_t* zero;           // [panels, groups, ZeroBytes(bits)], aligned to 2 bytes, or none
  int64_t size, quads, group_size, groups;
  int groups_per_chunk;  // 0 where chunks of 128 columns do not end with groups
  int bits;
  Codebook codebook;
};

// kBits = 4: uniform codes, expanded by bitmap_expand.cuh. kBits = 0: any width and codebook, code by code; levels are rounded to the dtype
// of the activations. Group sizes are multiples of 32, or one group. Sums of a group are multiplied by its scale in float32.
template <int kBits, int kTiles>
class BitmapCodesSource {
 public:
  using Weight = BitmapCodesWeight;
  static constexpr bool kOneShape = kBits == 0, kScaled = true;
  static constexpr int kColumns = 4, kBlocks = 4;
  static constexpr int kLargestBits = kBits == 0 ? 8 : kBits;
  static constexpr int kUnits = 0, kGroups = 512, kData = kGroups + 32 * 8;
  static constexpr int kMostBytes = kChunkUnits * 8 * kLargestBits, kStageBytes = kData + kMostBytes + 48;
  static constexpr int kCopies = kTiles == 1 ? 8 : 16, kTableBytes = kBits == 4 ? 256 * kCopies * kEntryBytes : 64;

  int64_t panel;
  const uint8_t* at;  // of the survivors of the chunk that is issued next

  static __device__ int Bits(const Weight& w) { return kBits == 0 ? w.bits : kBits; }
  static __device__ bool IsUniform(const Weight& w) { return kBits != 0 || w.codebook == Codebook::kUniform; }

  static __device__ MaskReader<4> Masks(const Weight& w, int64_t panel, int chunk) { return {w.bitmap, panel, w.quads, chunk}; }

  static __device__ void FillTable(const Weight& w, unsigned char* table) {
    if constexpr (kBits == 4) {
      FillExpansions<kCopies, kMmaThreads>(table);
    } else {
      const BitmapCodesGrid grid{nullptr, nullptr, nullptr, nullptr, nullptr, 0, 0, 0, w.bits, w.codebook};
      grid.LoadLevels(reinterpret_cast<float*>(table));
    }
  }

  __device__ void Start(const Weight& w, int64_t own_panel, int chunk, int end, unsigned char* ring, const unsigned char* table) {
    panel = own_panel;
    ring_ = ring;
    table_ = kBits == 4 ? table + threadIdx.x % kCopies * kEntryBytes : table;
    const int64_t position = w.panel_offsets[panel];
    at = w.codes + min(max(position, int64_t{0}), w.size);
    masks_ = Masks(w, panel, chunk);
    next_ = masks_.Next();
    PrefetchShare(w.codes, w.size, position, w.panel_offsets[panel + 1], chunk, end, CeilDiv(w.quads, kChunkUnits));
    const int64_t column = static_cast<int64_t>(chunk) * kChunkUnits * kColumns;
    const int g = static_cast<int>(threadIdx.x) % 32 / 4;
    first_ = static_cast<uint32_t>(panel * w.groups);
    below_ = (1u << 8 * (g % 4)) - 1;
    byte_ = 0x4440u + static_cast<uint32_t>(g % 4);
    issued_ = static_cast<int>(column / w.group_size);
    left_ = issued_left_ = static_cast<int>(w.group_size - column % w.group_size);
    LoadGroups(w);
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile) {
#pragma unroll
      for (int i = 0; i < 4; ++i) of_group_[tile][i] = 0.0f;
    }
  }

  __device__ void Issue(const Weight& w, int stage) {
    unsigned char* const to = ring_ + stage * kStageBytes;
    const int lane = static_cast<int>(threadIdx.x) % 32, own = next_.Size(Bits(w)), through = ScanOfWarp(own);
    const int size = __shfl_sync(0xffffffffu, through, 31);
    const int skew = CopyRange<kMostBytes>(at, w.codes + w.size, size, to + kData);
    const uint32_t start = static_cast<uint32_t>(8 * (skew + through - own));
    const uint32_t half = start + static_cast<uint32_t>(Bits(w) * __popc(next_.unit.words[0]));
    // Masks and starts, in bits, of rows 0-7 of two quads, then of rows 8-15.
    auto* const units = reinterpret_cast<uint2*>(to + kUnits) + lane / 2 * 4 + lane % 2;
    units[0] = make_uint2(next_.unit.words[0], start);
    units[2] = make_uint2(next_.unit.words[1], half);
    at += size;
    reinterpret_cast<uint2*>(to + kGroups)[lane] = make_uint2(scales_, Zeros(w));
    LoadGroups(w);
    next_ = masks_.Next();
  }

  __device__ void StartChunk(const Weight&, int stage) {
    stage_ = ring_ + stage * kStageBytes;
    group_at_ = stage_ + kGroups + static_cast<int>(threadIdx.x) % 32 / 4 * 8;
    SetZeros();
  }

  // A lane's bits of a quad are byte g of its mask. `block` is a constant of an unrolled loop.
  template <class Half>
  __device__ void Fragments(const Weight& w, int block, uint32_t (&fragments)[2][4]) const {
    const int lane = static_cast<int>(threadIdx.x) % 32, g = lane / 4, t = lane % 4;
    const uint4 units = reinterpret_cast<const uint4*>(stage_ + kUnits)[(block * 4 + t) * 2 + g / 4];
    const uint32_t mask[2] = {units.x, units.z}, start[2] = {units.y, units.w};
#pragma unroll
    for (int quad = 0; quad < 2; ++quad) {
      const uint32_t bit = start[quad] + static_cast<uint32_t>(Bits(w) * __popc(mask[quad] & below_)), kept = Permute(mask[quad], 0, byte_);
      const auto* words = reinterpret_cast<const uint32_t*>(stage_ + kData + (bit >> 3 & ~3u));
      if constexpr (kBits == 4) {
        const uint2 entry = *reinterpret_cast<const uint2*>(table_ + kept * (kCopies * kEntryBytes));
        Spread<Half>(ExpandCodes(__funnelshift_r(words[0], words[1], bit), entry, second_, difference_), fragments[quad]);
      } else {
        Decode<Half>(w, words, bit, kept, fragments[quad]);
      }
    }
  }

  __device__ float (&Sums(float (&)[kTiles][4], int tile))[4] { return of_group_[tile]; }

  // Where a group ends, or the warp's columns do, its sums join the others.
  __device__ void EndBlock(const Weight& w, bool last, float (&sums)[kTiles][4]) {
    left_ -= static_cast<int>(kBlockColumns);
    if (left_ > 0 && !last) return;
    const uint32_t pair = *reinterpret_cast<const uint32_t*>(group_at_);
    const float scale[2] = {BitsToFloat(pair << 16), BitsToFloat(pair & 0xffff0000u)};
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        sums[tile][i] = __fmaf_rn(scale[i / 2], of_group_[tile][i], sums[tile][i]);
        of_group_[tile][i] = 0.0f;
      }
    }
    left_ = static_cast<int>(w.group_size);
    group_at_ += 64;
    SetZeros();  // of no use after the last group of a chunk: the next chunk has its own
  }

 private:
  // Scales and zero points of the groups of the next chunk: a lane has rows 2p and 2p + 1, p = lane % 8, of one of four.
  __device__ void LoadGroups(const Weight& w) {
    const int lane = static_cast<int>(threadIdx.x) % 32, own = issued_ + lane / 8, row = lane % 8 * 2;
    scales_ = zeros_ = 0;
    if (own < w.groups) {
      const int64_t group = first_ + static_cast<uint32_t>(own);
      scales_ = __ldg(reinterpret_cast<const uint32_t*>(w.scale + group * kPanelRows + row));
      if (IsUniform(w)) zeros_ = __ldg(reinterpret_cast<const uint16_t*>(w.zero + group * ZeroBytes(Bits(w)) + (Bits(w) > 4 ? row : row % 8)));
    }
    issued_ += w.groups_per_chunk;
    if (w.groups_per_chunk != 0) return;
    int columns = kChunkUnits * kColumns;  // groups and chunks do not end together
    while (columns >= issued_left_) {
      columns -= issued_left_;
      ++issued_;
      issued_left_ = static_cast<int>(w.group_size);
    }
    issued_left_ -= columns;
  }

  // The zero points of this lane's two rows, a half each.
  __device__ uint32_t Zeros(const Weight& w) const {
    if (Bits(w) > 4) return Permute(zeros_, 0, 0x4140);
    return Permute(zeros_ >> static_cast<int>(threadIdx.x) % 8 / 4 * 4, 0, 0x4140) & 0x000f000fu;
  }

  // Those of rows 2g and 2g + 1, of the group that comes next.
  __device__ void SetZeros() {
    const uint32_t zeros = *reinterpret_cast<const uint32_t*>(group_at_ + 4);
    zero_[0] = zeros & 0xffffu;
    zero_[1] = zeros >> 16;
    second_ = zero_[1] * 0x11111111u;
    difference_ = zero_[0] - zero_[1];
    first_pair_ = zero_[0] * 0x00010001u;
  }

  template <class Half>
  __device__ void Spread(const ExpandedRows& rows, uint32_t (&fragment)[4]) const {
#pragma unroll
    for (int row = 0; row < 2; ++row) {
      // Bytes in the order of the quad, columns 0, 2, 1, 3.
      const uint32_t bytes = row == 0 ? rows.first : rows.second;
      const uint32_t zero = AndOr(row == 0 ? first_pair_ : second_, 0x000f000fu, Half::kCodeBase), minus = zero | 0x80008000u;
      fragment[row] = Half::Fma((bytes & 0x000f000fu) ^ zero, Half::kOnes, minus);
      fragment[2 + row] = Half::Fma((bytes >> 8 & 0x000f000fu) ^ zero, Half::kOnes, minus);
    }
  }

  template <class Half>
  __device__ void Decode(const Weight& w, const uint32_t* words, uint32_t shift, uint32_t kept, uint32_t (&fragment)[4]) const {
    uint32_t low = __funnelshift_r(words[0], words[1], shift), high = __funnelshift_r(words[1], words[2], shift);
    const auto* levels = reinterpret_cast<const float*>(table_);
    const uint32_t mask = (1u << w.bits) - 1;
    float value[8];
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const bool stored = (kept >> i & 1) != 0;
      const int zero = static_cast<int>(zero_[i / 4]), code = static_cast<int>(low & mask);
      const float step = w.codebook == Codebook::kUniform ? static_cast<float>(code - zero) : levels[code % 16];
      value[i] = stored ? step : 0.0f;
      low = stored ? __funnelshift_r(low, high, static_cast<uint32_t>(w.bits)) : low;
      high = stored ? high >> w.bits : high;
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) fragment[i] = Half::Pack(value[i % 2 * 4 + i / 2], value[i % 2 * 4 + i / 2 + 2]);
  }

  unsigned char* ring_;
  const unsigned char *stage_, *table_;
  MaskReader<4> masks_;
  ChunkMask<4> next_;
  int left_;                  // columns of the group of the block that comes next
  int issued_, issued_left_;  // group of the chunk after the one that is issued next, and columns of it
  uint32_t scales_, zeros_;   // of the chunk that is issued next
  const unsigned char* group_at_;  // of the group that is multiplied, in the stage
  uint32_t zero_[2], first_pair_;             // of rows 2g and 2g + 1; first_pair_: the first in both halves
  uint32_t second_, difference_;              // for ExpandCodes
  uint32_t first_;                            // group of the panel
  uint32_t below_, byte_;                     // of this lane's byte of a mask
  float of_group_[kTiles][4];
};

}  // namespace prism::cuda
