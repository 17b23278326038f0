// How a warp of BitmapDigitsKernel walks over panels: bitmap_digits.cuh says what it computes.
#pragma once
#include "bitmap_digits.cuh"

namespace prism::cuda {

// One warp's walk over its share of the columns of the panels [first, last).
template <int kGroup, int kTokens>
class DigitsWarp {
 public:
  using Layout = DigitsLayout<kGroup, kTokens>;
  static constexpr int kGroups = kDigitColumns / kGroup, kTiles = Layout::kTiles;  // groups of a chunk

  __device__ DigitsWarp(const BitmapDigitsArgs& a, int64_t first, int64_t last, unsigned char* shared)
      : a_(a), shared_(shared), panels_(static_cast<int>(last - first)), first_(first), quads_(static_cast<int>(NumQuads(a.k))) {
    const int chunks = static_cast<int>(CeilDiv(a.k, kDigitColumns)), warp = static_cast<int>(threadIdx.x) / 32;
    begin_ = ShareOf(chunks, warp, kDigitWarps);
    count_ = ShareOf(chunks, warp + 1, kDigitWarps) - begin_;
    lead_ = min(kDigitStages - 1, kDigitAhead * count_);
    lane_ = static_cast<int>(threadIdx.x) % 32;
    const int g = lane_ / 4, t = lane_ % 4;
    units_ = quads_ - begin_ * kChunkUnits - lane_;
    table_ = shared + lane_ % kExpansionCopies * kEntryBytes;
    write_ = first_stage_ = Layout::kRing + warp * kDigitStages * Layout::kStage;
    read_ = first_stage_ + t * 32 + g / 4 * 16;
    below_ = (1u << 8 * (g % 4)) - 1;
    byte_ = 0x4440u + static_cast<uint32_t>(g % 4);
    zero_shift_ = g < 4 ? 0 : 4;
    digits_ = shared + Layout::kDigitsAt + begin_ * 2 * Layout::kDigitBytes + (kTokens == 1 ? g % 4 : g) * 64 + t * 16;
    group_sums_ = shared + Layout::GroupSums(a.k) + begin_ * kGroups * Layout::kGroupSumBytes + t * 8;
    scale_at_ = reinterpret_cast<const uint8_t*>(a.scale) + (first * a.groups + begin_ * kGroups) * 32 + 4 * g;
    zero_at_ = a.zero + (first * a.groups + begin_ * kGroups) * 8 + 2 * (g % 4);
    mask_at_ = a.bitmap + (first * quads_ + begin_ * kChunkUnits + lane_) * 8;
    size_at_ = mask_at_ + (kDigitAhead + 1) * static_cast<int64_t>(quads_) * 8;
#pragma unroll
    for (int i = 0; i < 5; ++i) reached_[i] = lane_ >= 1 << i ? 1 : 0;
  }

  // Digits of the share, and sizes of the first panels; a barrier of the block follows.
  __device__ void Prepare() {
    const DigitWriter<kTokens> writer(a_, begin_, begin_ + count_, shared_ + Layout::kDigitsAt);
#pragma unroll
    for (int token = 0; token < kTokens; ++token) {
      const float factor = writer.Write(token);
      if (token % 2 == lane_ % 4 / 2) factor_[token / 2] = factor * (lane_ % 2 == 0 ? 1.0f : 65536.0f);
    }
    __syncwarp();
    const uint32_t ones[4] = {0x01010101u, 0x01010101u, 0x01010101u, 0x01010101u};
    for (int group = 0; group < count_ * kGroups; ++group) {
#pragma unroll
      for (int tile = 0; tile < kTiles; ++tile) {
        int sums[4] = {0, 0, 0, 0};
#pragma unroll
        for (int half = 0; half < kGroup / 64; ++half) {
          MultiplyDigits(sums, ones, ones, *Digits(digits_ + (group * (kGroup / 64) + half) * Layout::kDigitBytes, tile));
        }
        if (lane_ < 4) *GroupSums(group_sums_ + group * Layout::kGroupSumBytes, tile) = make_uint2(static_cast<uint32_t>(sums[0]), static_cast<uint32_t>(sums[1]));
      }
    }
    for (int panel = 0; panel <= kDigitAhead; ++panel) {
      int size = 0;
      const uint8_t* at = mask_at_ + static_cast<int64_t>(panel) * quads_ * 8;
      for (int chunk = 0; chunk < count_; ++chunk) size += Size(Mask(at + chunk * kMaskBytes, chunk, panel < panels_ ? units_ : 0));
      PublishSize(panel, size);
    }
    __syncwarp();
  }

  // The first chunks, after the barrier.
  __device__ void Open() {
    SetBegin(Begin(0, Offset(0)));
    next_ = Begin(1, Offset(1));
    later_ = Begin(2, Offset(2));
    offset_ = Offset(3);
    if (count_ == 0) return;
    mask_ = Mask(mask_at_, 0, units_);
    LoadGrid(0, 0);
    for (int i = 0; i < lead_; ++i) Issue(0);
  }

  // The barrier before this panel made the begins of the second panel after it known.
  __device__ void StartPanel(int panel) {
    next_ = later_;
    later_ = Begin(panel + kDigitAhead, offset_);
    offset_ = Offset(panel + kDigitAhead + 1);
  }

  __device__ void MultiplyPanel(int panel) {
    const int ahead = panel + kDigitAhead + 1 < panels_ ? units_ : 0;
    int size = 0;
    uint2 sized = make_uint2(0, 0);
    unsigned char *digits = digits_, *group_sums = group_sums_;
    for (int chunk = 0; chunk < count_; ++chunk) {
      size += Size(sized);
      sized = Mask(size_at_ + chunk * kMaskBytes, chunk, ahead);
      const Grid grid = grid_;
      LoadGrid(panel, chunk + 1);
      if (lead_ == kDigitStages - 1) {
        CopyAsyncWait<kDigitStages - 2>();
      } else {
        CopyAsyncWait<kDigitStages - 3>();
      }
      __syncwarp();  // this chunk is there for all lanes, and all have read the one before
      Issue(panel);
      Multiply(grid, digits, group_sums);
      digits += 2 * Layout::kDigitBytes;
      group_sums += kGroups * Layout::kGroupSumBytes;
    }
    size_at_ += static_cast<int64_t>(quads_) * 8;
    PublishSize(panel + kDigitAhead + 1, size + Size(sized));
    PublishSums(panel);
  }

  // y of panel `panel`, by one warp, after the barrier that follows it.
  __device__ void StorePanel(int panel) const {
    const float* const sums = Sums(panel, 0);
    for (int i = lane_; i < a_.m * kPanelRows; i += 32) {
      const int64_t row = (first_ + panel) * kPanelRows + i % kPanelRows;
      if (row >= a_.n) continue;
      float sum = 0.0f;
#pragma unroll
      for (int warp = 0; warp < kDigitWarps; ++warp) sum += sums[warp * kTokens * kPanelRows + i];
      if (a_.bias != nullptr) sum += LoadFloat(a_.bias, a_.dtype, row);
      StoreFloat(sum, a_.y, a_.dtype, i / kPanelRows * a_.n + row);
    }
  }

 private:
  static constexpr int kMaskBytes = 8 * kChunkUnits;  // of a chunk

  struct Grid {
    uint32_t scale[kGroups], zero[kGroups];  // of rows 2g and 2g + 1
  };

  __device__ static int Size(uint2 mask) { return static_cast<int>(static_cast<unsigned>(__popc(mask.x) + __popc(mask.y) + 1) >> 1); }

  // This lane's mask of a chunk of its share, of which it has `units`.
  __device__ static uint2 Mask(const uint8_t* at, int chunk, int units) {
    return chunk * kChunkUnits < units ? __ldg(reinterpret_cast<const uint2*>(at)) : make_uint2(0, 0);
  }

  __device__ int* Sizes(int panel) const { return reinterpret_cast<int*>(shared_ + Layout::kSizes) + panel % 4 * kDigitWarps; }
  __device__ float* Sums(int panel, int warp) const {
    return reinterpret_cast<float*>(shared_ + Layout::kSums + panel % 2 * Layout::kPanelSums) + warp * kTokens * kPanelRows;
  }
  __device__ static const uint4* Digits(const unsigned char* at, int tile) { return reinterpret_cast<const uint4*>(at + tile * 512); }
  __device__ static uint2* GroupSums(unsigned char* at, int tile) { return reinterpret_cast<uint2*>(at + tile * 32); }

  __device__ void PublishSize(int panel, int size) const {
    size = SumOfWarp(size);
    if (lane_ == 0) Sizes(panel)[threadIdx.x / 32] = size;
  }

  __device__ int64_t Offset(int panel) const { return panel < panels_ ? __ldg(a_.panel_offsets + first_ + panel) : 0; }

  // Where this warp's share of a panel begins.
  __device__ int64_t Begin(int panel, int64_t offset) const {
    const int warp = static_cast<int>(threadIdx.x) / 32;
    return min(max(offset, int64_t{0}), a_.size) + SumOfWarp(lane_ < warp ? Sizes(panel)[lane_] : 0);
  }

  __device__ void SetBegin(int64_t begin) {
    at_ = a_.codes + begin;
    left_ = static_cast<int>(min(a_.size - begin, int64_t{1} << 30));
  }

  // Scales and zero points of a chunk, or of the first chunk of the next panel.
  __device__ void LoadGrid(int panel, int chunk) {
    const bool wraps = chunk == count_;
    if (chunk > 0) {
      const int groups = wraps ? a_.groups - (count_ - 1) * kGroups : kGroups;
      scale_at_ += groups * 32;
      zero_at_ += groups * 8;
    }
    const int own = wraps ? 0 : chunk, there = a_.groups - (begin_ + own) * kGroups;
#pragma unroll
    for (int group = 0; group < kGroups; ++group) {
      grid_.scale[group] = grid_.zero[group] = 0;
      if (group >= there || (wraps && panel + 1 == panels_)) continue;
      grid_.scale[group] = __ldg(reinterpret_cast<const uint32_t*>(scale_at_ + group * 32));
      grid_.zero[group] = __ldg(reinterpret_cast<const uint16_t*>(zero_at_ + group * 8));
    }
  }

  // Copies the survivors of the next chunk, `size` bytes from at_ on, as whole vectors; returns where in them they begin.
  __device__ int CopyCodes(int size, unsigned char* to) const {
    if (left_ < size + 15) return CopyRange<Layout::kMostBytes>(at_, a_.codes + a_.size, size, to);
    const int skew = static_cast<int>(reinterpret_cast<uintptr_t>(at_) & 15), end = skew + size - 16 * lane_;
    const uint8_t* const from = at_ - skew + 16 * lane_;
    to += 16 * lane_;
    if (end > 0) CopyAsync16(to, from);
    if (end > 512) CopyAsync16(to + 512, from + 512);
    if (skew + size > 1024 && end > 1024) CopyAsync16(to + 1024, from + 1024);
    return skew;
  }

  // Places and copies the next chunk; `panel` is the one that is multiplied.
  __device__ void Issue(int panel) {
    if (issued_panel_ < panels_) {
      if (issued_chunk_ == 0 && issued_panel_ > 0) SetBegin(issued_panel_ == panel + 1 ? next_ : later_);
      const int low = __popc(mask_.x), own = static_cast<int>(static_cast<unsigned>(low + __popc(mask_.y) + 1) >> 1);
      int through = own;
#pragma unroll
      for (int i = 0; i < 5; ++i) through += __shfl_up_sync(0xffffffffu, through, 1u << i) * reached_[i];
      const int size = __shfl_sync(0xffffffffu, through, 31), skew = CopyCodes(size, shared_ + write_ + Layout::kData);
      const uint32_t start = static_cast<uint32_t>(write_ + Layout::kData + skew + through - own) * 8;  // in bits
      unsigned char* const unit = shared_ + write_ + lane_ / 2 * 32 + lane_ % 2 * 8;
      *reinterpret_cast<uint2*>(unit) = make_uint2(mask_.x, start);
      *reinterpret_cast<uint2*>(unit + 16) = make_uint2(mask_.y, start + 4 * static_cast<uint32_t>(low));
      write_ += write_ == first_stage_ + (kDigitStages - 1) * Layout::kStage ? -(kDigitStages - 1) * Layout::kStage : Layout::kStage;
      at_ += size;
      left_ -= size;
      mask_at_ += kMaskBytes;
      if (++issued_chunk_ == count_) {
        issued_chunk_ = 0;
        mask_at_ += static_cast<int64_t>(quads_) * 8 - count_ * kMaskBytes;
        ++issued_panel_;
      }
      mask_ = Mask(mask_at_, issued_chunk_, issued_panel_ < panels_ ? units_ : 0);
    }
    CopyAsyncCommit();
  }

  __device__ static void MultiplyDigits(int (&sums)[4], const uint32_t (&first)[4], const uint32_t (&second)[4], uint4 digits) {
    const uint32_t low[2] = {digits.x, digits.y}, high[2] = {digits.z, digits.w};
    MmaU8S8(sums, first, low);
    MmaU8S8(sums, second, high);
  }

  struct Zeros {
    uint32_t second, difference;  // of all codes: the second row's, and what the first row's are more
    uint32_t bytes[2];            // of the four bytes of either row
  };

  // A row of a quad in a register each: codes, and the zero point where there are none.
  __device__ void Expand(uint32_t mask, uint32_t start, const Zeros& zeros, uint32_t& first, uint32_t& second) const {
    const uint32_t bit = start + 4 * static_cast<uint32_t>(__popc(mask & below_));
    const auto* const words = reinterpret_cast<const uint32_t*>(shared_ + (bit >> 3 & ~3u));
    const uint2 entry = *reinterpret_cast<const uint2*>(table_ + Permute(mask, 0, byte_) * (kExpansionCopies * kEntryBytes));
    const uint32_t codes = __funnelshift_r(words[0], words[1], bit) ^ (entry.y * zeros.difference + zeros.second);
    first = (Permute(codes, codes >> 4, entry.x) & 0x0f0f0f0fu) ^ zeros.bytes[0];
    second = (Permute(codes, codes >> 4, entry.x >> 16) & 0x0f0f0f0fu) ^ zeros.bytes[1];
  }

  __device__ void Multiply(const Grid& grid, const unsigned char* digits, unsigned char* group_sums) {
    constexpr uint32_t kMagic = 0x4b400000;  // of 1.5 * 2^23
#pragma unroll
    for (int group = 0; group < kGroups; ++group) {
      const uint32_t pair = grid.zero[group] >> zero_shift_ & 0x0f0fu, zero[2] = {pair & 255u, pair >> 8};
      const Zeros zeros = {zero[1] * 0x11111111u, zero[0] - zero[1], {zero[0] * 0x01010101u, zero[1] * 0x01010101u}};
      int sums[kTiles][4];
#pragma unroll
      for (int tile = 0; tile < kTiles; ++tile) {
        const uint2 all = *GroupSums(group_sums + group * Layout::kGroupSumBytes, tile);
#pragma unroll
        for (int i = 0; i < 4; ++i) sums[tile][i] = static_cast<int>(kMagic - zero[i / 2] * (i % 2 == 0 ? all.x : all.y));
      }
#pragma unroll
      for (int half = group * (kGroup / 64); half < (group + 1) * (kGroup / 64); ++half) {
        uint32_t codes[2][4];
#pragma unroll
        for (int block = 0; block < 2; ++block) {
          const uint4 units = *reinterpret_cast<const uint4*>(shared_ + read_ + (half * 2 + block) * 128);
          Expand(units.x, units.y, zeros, codes[block][0], codes[block][1]);
          Expand(units.z, units.w, zeros, codes[block][2], codes[block][3]);
        }
#pragma unroll
        for (int tile = 0; tile < kTiles; ++tile) {
          MultiplyDigits(sums[tile], codes[0], codes[1], *Digits(digits + half * Layout::kDigitBytes, tile));
        }
      }
      const float scale[2] = {BitsToFloat(grid.scale[group] << 16), BitsToFloat(grid.scale[group] & 0xffff0000u)};
#pragma unroll
      for (int tile = 0; tile < kTiles; ++tile) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const float sum = BitsToFloat(static_cast<uint32_t>(sums[tile][i])) - BitsToFloat(kMagic);
          sums_[tile][i] = __fmaf_rn(scale[i / 2], sum, sums_[tile][i]);
        }
      }
    }
    read_ += read_ >= first_stage_ + (kDigitStages - 1) * Layout::kStage ? -(kDigitStages - 1) * Layout::kStage : Layout::kStage;
  }

  // The sums of this warp's share of a panel, digits put together.
  __device__ void PublishSums(int panel) {
    const int g = lane_ / 4, t = lane_ % 4;
    float* const to = Sums(panel, static_cast<int>(threadIdx.x) / 32);
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile) {
      float rows[2];
#pragma unroll
      for (int row = 0; row < 2; ++row) {
        const float part = __fmaf_rn(sums_[tile][2 * row + 1], 256.0f, sums_[tile][2 * row]) * factor_[tile];
        rows[row] = part + __shfl_xor_sync(0xffffffffu, part, 1);
        sums_[tile][2 * row] = sums_[tile][2 * row + 1] = 0.0f;
      }
      const int token = 2 * tile + t / 2;
      if (t % 2 == 0 && token < kTokens) *reinterpret_cast<float2*>(to + token * kPanelRows + 2 * g) = make_float2(rows[0], rows[1]);
    }
  }

  const BitmapDigitsArgs& a_;
  unsigned char* const shared_;
  const int panels_;
  const int64_t first_;
  const int quads_;
  int begin_, count_, lead_;  // chunks
  int lane_, units_;          // quads from this lane's first one on
  int reached_[5];            // by steps of 1, 2, 4 ... lanes
  int first_stage_, write_, read_;  // offsets: of the ring, of the stage that is issued next, and of this lane's units in that which is read
  const unsigned char* table_;
  uint32_t below_, byte_, zero_shift_;
  unsigned char *digits_, *group_sums_;
  const uint8_t *scale_at_, *zero_at_, *mask_at_, *size_at_;
  const uint8_t* at_;      // the survivors of the chunk that is issued next
  int left_;               // of the stream behind, at most 2^30
  int64_t next_, later_;   // where the next panel begins, and the one after it
  int64_t offset_;
  uint2 mask_;  // of the chunk that is issued next
  Grid grid_;
  int issued_chunk_ = 0, issued_panel_ = 0;
  float factor_[kTiles] = {}, sums_[kTiles][4] = {};
};

}  // namespace prism::cuda
