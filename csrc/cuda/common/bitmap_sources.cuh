// What BitmapMmaKernel multiplies: 16-bit values behind a mask per pair of columns, or codes behind one per quad. A source
// is a warp's walk over one panel; Issue runs ahead of Fragments.
#pragma once
#include "bitmap_grid.cuh"
#include "bitmap_mma.cuh"

namespace prism::cuda {

// Copies the bytes [position, position + size) of a stream of `stream_size` bytes, as whole vectors of 16 bytes, to shared
// memory, and returns where in it they begin (0 to 15). `size` is at most kMostBytes; what lies past the stream's end is not
// read. Up to 15 bytes before the first one are, in the same aligned vector.
template <int kMostBytes>
__device__ inline int CopyRange(const uint8_t* stream, int64_t stream_size, int64_t position, int size, unsigned char* to) {
  const uint8_t* const from = stream + position;
  const int skew = static_cast<int>(reinterpret_cast<uintptr_t>(from) % 16), lane = static_cast<int>(threadIdx.x) % 32;
  const int left = static_cast<int>(min(stream_size - position, int64_t{kMostBytes} + 16)) + skew;
  const int end = min(skew + size, left);
#pragma unroll
  for (int at = 16 * lane; at < kMostBytes + 15 + 16 * lane; at += 16 * 32) {
    if (at < end) CopyAsync16(to + at, from - skew + at, min(left - at, 16));
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
  static constexpr bool kOneShape = false;
  static constexpr int kColumns = 2, kBlocks = 2;  // columns of a unit, blocks of 32 columns of a chunk
  static constexpr int kMasks = 0, kStarts = 128, kData = 192;
  static constexpr int kMostBytes = kChunkUnits * 32 * 2, kStageBytes = kData + kMostBytes + 32, kTableBytes = 0;

  int64_t panel, position;

  static __device__ MaskReader<2> Masks(const Weight& w, int64_t panel, int chunk) { return {w.bitmap, panel, w.pairs, chunk}; }
  static __device__ void FillTable(const Weight&, unsigned char*) {}

  __device__ void Start(const Weight& w, int64_t own_panel, int chunk, int end, unsigned char* ring, const unsigned char*) {
    panel = own_panel;
    ring_ = ring;
    position = 2 * max(w.panel_offsets[panel], int64_t{0});
    masks_ = Masks(w, panel, chunk);
    next_ = masks_.Next();
    PrefetchShare(w.values, w.size, position, 2 * w.panel_offsets[panel + 1], chunk, end, CeilDiv(w.pairs, kChunkUnits));
  }

  __device__ void Issue(const Weight& w, int stage) {
    unsigned char* const to = ring_ + stage * kStageBytes;
    const int lane = static_cast<int>(threadIdx.x) % 32, count = next_.unit.Count(), through = ScanOfWarp(count);
    const int size = 2 * __shfl_sync(0xffffffffu, through, 31);
    const int skew = CopyRange<kMostBytes>(w.values, w.size, position, size, to + kData);
    reinterpret_cast<uint32_t*>(to + kMasks)[lane] = next_.unit.words[0];
    reinterpret_cast<uint16_t*>(to + kStarts)[lane] = static_cast<uint16_t>(skew / 2 + through - count);
    position += size;
    next_ = masks_.Next();
  }

  __device__ void StartChunk(const Weight&, int stage) { stage_ = ring_ + stage * kStageBytes; }

  template <class Half>
  __device__ void Fragments(const Weight&, int block, uint32_t (&fragments)[2][4]) const {
    const int lane = static_cast<int>(threadIdx.x) % 32, g = lane / 4, t = lane % 4;
    const uint4 masks = reinterpret_cast<const uint4*>(stage_ + kMasks)[block * 4 + t];
    const uint2 starts = reinterpret_cast<const uint2*>(stage_ + kStarts)[block * 4 + t];
    const uint32_t mask[4] = {masks.x, masks.y, masks.z, masks.w}, start[2] = {starts.x, starts.y};
    const auto* data = reinterpret_cast<const uint16_t*>(stage_ + kData);
    const uint32_t below = (1u << 4 * g) - 1;
#pragma unroll
    for (int pair = 0; pair < 4; ++pair) {
      const uint16_t* from = data + (start[pair / 2] >> 16 * (pair % 2) & 0xffffu) + __popc(mask[pair] & below);
      const uint32_t kept = mask[pair] >> 4 * g;
      uint32_t value[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        value[i] = (kept >> i & 1) != 0 ? *from : 0;
        from += kept >> i & 1;
      }
      fragments[pair / 2][pair % 2 * 2] = value[0] | value[1] << 16;
      fragments[pair / 2][pair % 2 * 2 + 1] = value[2] | value[3] << 16;
    }
  }

  template <int kTiles>
  __device__ float (&Sums(float (&sums)[kTiles][4], int tile))[4] { return sums[tile]; }
  template <int kTiles>
  __device__ void EndBlock(const Weight&, bool, float (&)[kTiles][4]) {}

 private:
  unsigned char* ring_;
  const unsigned char* stage_;
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
  int64_t size, zero_size, quads, group_size, groups;
  int bits;
  Codebook codebook;
};

// kBits = 4: uniform codes, spread by prmt. kBits = 0: any width and codebook, code by code; levels are rounded to the dtype
// of the activations. Group sizes are multiples of 32, or one group. Sums of a group are multiplied by its scale in float32.
template <int kBits, int kTiles>
class BitmapCodesSource {
 public:
  using Weight = BitmapCodesWeight;
  static constexpr bool kOneShape = kBits == 0;
  static constexpr int kColumns = 4, kBlocks = 4;
  static constexpr int kLargestBits = kBits == 0 ? 8 : kBits, kMostGroups = 4;
  static constexpr int kMasks = 0, kStarts = 256, kScales = 384, kZeros = kScales + kMostGroups * 32;
  static constexpr int kData = kZeros + kMostGroups * 16 + 16;
  static constexpr int kMostBytes = kChunkUnits * 8 * kLargestBits, kStageBytes = kData + kMostBytes + 48;
  static constexpr int kTableBytes = 64;

  int64_t panel, position;

  static __device__ int Bits(const Weight& w) { return kBits == 0 ? w.bits : kBits; }
  static __device__ bool IsUniform(const Weight& w) { return kBits != 0 || w.codebook == Codebook::kUniform; }

  static __device__ MaskReader<4> Masks(const Weight& w, int64_t panel, int chunk) { return {w.bitmap, panel, w.quads, chunk}; }

  // For 4 bits, by the mask of 4 codes of a row: selectors of bytes of (w, w >> 4), where byte 3 of w is what a pruned
  // weight takes, and above them the bits that the survivors take. Else the levels.
  static __device__ void FillTable(const Weight& w, unsigned char* table) {
    if constexpr (kBits == 4) {
      const uint32_t mask = threadIdx.x;
      if (mask >= 16) return;
      uint32_t selectors = 0;
      int count = 0;
      for (int i = 0; i < 4; ++i) {
        const bool kept = (mask >> i & 1) != 0;
        selectors |= static_cast<uint32_t>(kept ? count / 2 + count % 2 * 4 : 3) << 4 * i;
        count += kept;
      }
      reinterpret_cast<uint32_t*>(table)[mask] = selectors | static_cast<uint32_t>(4 * count) << 16;
    } else {
      const BitmapCodesGrid grid{nullptr, nullptr, nullptr, nullptr, nullptr, 0, 0, 0, w.bits, w.codebook};
      grid.LoadLevels(reinterpret_cast<float*>(table));
    }
  }

  __device__ void Start(const Weight& w, int64_t own_panel, int chunk, int end, unsigned char* ring, const unsigned char* table) {
    panel = own_panel;
    ring_ = ring;
    table_ = table;
    position = max(w.panel_offsets[panel], int64_t{0});
    masks_ = Masks(w, panel, chunk);
    next_ = masks_.Next();
    PrefetchShare(w.codes, w.size, position, w.panel_offsets[panel + 1], chunk, end, CeilDiv(w.quads, kChunkUnits));
    const int64_t column = static_cast<int64_t>(chunk) * kChunkUnits * kColumns;
    group_ = issued_ = static_cast<int>(column / w.group_size);
    left_ = issued_left_ = static_cast<int>(w.group_size - column % w.group_size);
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
    const int skew = CopyRange<kMostBytes>(w.codes, w.size, position, size, to + kData);
    const uint32_t start = static_cast<uint32_t>(8 * (skew + through - own));
    const uint32_t half = start + static_cast<uint32_t>(Bits(w) * __popc(next_.unit.words[0]));
    reinterpret_cast<uint2*>(to + kMasks)[lane] = make_uint2(next_.unit.words[0], next_.unit.words[1]);
    reinterpret_cast<uint32_t*>(to + kStarts)[lane] = start | half << 16;  // in bits, of rows 0-7 and 8-15
    position += size;
    IssueGroups(w, to);
    next_ = masks_.Next();
  }

  __device__ void StartChunk(const Weight& w, int stage) {
    stage_ = ring_ + stage * kStageBytes;
    scale_at_ = stage_ + kScales;
    const auto group = static_cast<uint32_t>(panel) * static_cast<uint32_t>(w.groups) + static_cast<uint32_t>(group_);
    const uint32_t zero = static_cast<uint32_t>(reinterpret_cast<uintptr_t>(w.zero)) + group * static_cast<uint32_t>(ZeroBytes(Bits(w)));
    zero_at_ = stage_ + kZeros + zero % 16;
    LoadZeros(w);
  }

  // A lane's bits of a quad are byte g of its mask. `block` is a constant of an unrolled loop.
  template <class Half>
  __device__ void Fragments(const Weight& w, int block, uint32_t (&fragments)[2][4]) const {
    const int lane = static_cast<int>(threadIdx.x) % 32, g = lane / 4, t = lane % 4;
    const uint4 masks = reinterpret_cast<const uint4*>(stage_ + kMasks)[block * 4 + t];
    const uint2 starts = reinterpret_cast<const uint2*>(stage_ + kStarts)[block * 4 + t];
    const uint32_t mask[2] = {g < 4 ? masks.x : masks.y, g < 4 ? masks.z : masks.w}, start[2] = {starts.x, starts.y};
    const uint32_t below = (1u << 8 * (g % 4)) - 1;
#pragma unroll
    for (int quad = 0; quad < 2; ++quad) {
      const uint32_t first = Permute(start[quad], 0, g < 4 ? 0x4410 : 0x4432);
      const uint32_t bit = first + static_cast<uint32_t>(Bits(w) * __popc(mask[quad] & below));
      const auto* words = reinterpret_cast<const uint32_t*>(stage_ + kData + (bit >> 3 & ~3u));
      if constexpr (kBits == 4) {
        // Twice the byte, so that four bits of it are an offset in the table.
        const uint32_t kept = __funnelshift_r(mask[quad], mask[quad], static_cast<uint32_t>(8 * (g % 4) - 2));
        Spread<Half>(__funnelshift_r(words[0], words[1], bit), kept & 60u, kept >> 4 & 60u, fragments[quad]);
      } else {
        Decode<Half>(w, words, bit, mask[quad] >> 8 * (g % 4) & 255u, fragments[quad]);
      }
    }
  }

  __device__ float (&Sums(float (&)[kTiles][4], int tile))[4] { return of_group_[tile]; }

  // Where a group ends, or the warp's columns do, its sums join the others.
  __device__ void EndBlock(const Weight& w, bool last, float (&sums)[kTiles][4]) {
    left_ -= static_cast<int>(kBlockColumns);
    if (left_ > 0 && !last) return;
    const int g = static_cast<int>(threadIdx.x) % 32 / 4;
    const uint32_t pair = reinterpret_cast<const uint32_t*>(scale_at_)[g];
    const float scale[2] = {BitsToFloat(pair << 16), BitsToFloat(pair & 0xffff0000u)};
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        sums[tile][i] = __fmaf_rn(scale[i / 2], of_group_[tile][i], sums[tile][i]);
        of_group_[tile][i] = 0.0f;
      }
    }
    ++group_;
    left_ = static_cast<int>(w.group_size);
    scale_at_ += 32;
    zero_at_ += ZeroBytes(Bits(w));
    LoadZeros(w);  // of no use after the last group of a chunk: the next chunk has its own
  }

 private:
  // Scales and zero points of the groups of the next chunk.
  __device__ void IssueGroups(const Weight& w, unsigned char* to) {
    const int first = issued_;
    int columns = kChunkUnits * kColumns;
    while (columns >= issued_left_) {
      columns -= issued_left_;
      ++issued_;
      issued_left_ = static_cast<int>(w.group_size);
    }
    issued_left_ -= columns;
    const int count = min(issued_ + (columns > 0), static_cast<int>(w.groups)) - first;
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const int64_t group = panel * w.groups + first;
    if (lane < 2 * count) CopyAsync16(to + kScales + lane * 16, reinterpret_cast<const uint8_t*>(w.scale) + group * 32 + lane * 16);
    const int64_t bytes = ZeroBytes(Bits(w));
    if (IsUniform(w)) CopyRange<kMostGroups * 16>(w.zero, w.zero_size, group * bytes, count * static_cast<int>(bytes), to + kZeros);
  }

  // The zero points of rows 2g and 2g + 1.
  __device__ void LoadZeros(const Weight& w) {
    const int g = static_cast<int>(threadIdx.x) % 32 / 4;
    uint32_t pair = 0;
    if (IsUniform(w) && Bits(w) > 4) pair = *reinterpret_cast<const uint16_t*>(zero_at_ + 2 * g);
    if (IsUniform(w) && Bits(w) <= 4) pair = *reinterpret_cast<const uint16_t*>(zero_at_ + 2 * (g % 4)) >> (g < 4 ? 0 : 4) & 0x0f0fu;
    zero_[0] = pair & 255u;
    zero_[1] = pair >> 8;
  }

  // codes: from bit 0 on those that are kept, 4 bits each; low, high: offsets of the table's entries of rows 2g and 2g + 1.
  template <class Half>
  __device__ void Spread(uint32_t codes, uint32_t low, uint32_t high, uint32_t (&fragment)[4]) const {
#pragma unroll
    for (int row = 0; row < 2; ++row) {
      const uint32_t entry = *reinterpret_cast<const uint32_t*>(table_ + (row == 0 ? low : high));
      // Bytes in the order of the quad, columns 0, 2, 1, 3; their high halves are anything.
      const uint32_t bytes = Permute(Permute(codes, zero_[row], 0x4210), codes >> 4, entry);
      const uint32_t minus = (Half::kInteger | 0x80008000u) | zero_[row] | zero_[row] << 16;
      fragment[row] = Half::Fma(AndOr(bytes, 0x000f000fu, Half::kInteger), Half::kOne, minus);
      fragment[2 + row] = Half::Fma(AndOr(bytes >> 8, 0x000f000fu, Half::kInteger), Half::kOne, minus);
      codes >>= entry >> 16;
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
  int group_, left_;          // of the block that comes next, and the columns of it that are left
  int issued_, issued_left_;  // of the chunk that is issued next
  const unsigned char *scale_at_, *zero_at_;  // of the group, in the stage
  uint32_t zero_[2];
  float of_group_[kTiles][4];
};

}  // namespace prism::cuda
