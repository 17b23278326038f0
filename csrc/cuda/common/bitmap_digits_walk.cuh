// How a warp of BitmapDigitsKernel walks over panels: bitmap_digits.cuh says what it computes.
#pragma once
#include "bitmap_digits.cuh"

namespace prism::cuda {

// One warp's walk over its share of the columns of the panels [first, last).
template <int kGroup, int kTokens>
class DigitsWarp {
 public:
  using Layout = DigitsLayout<kGroup, kTokens>;
  static constexpr int kGroups = kPartColumns / kGroup, kTiles = Layout::kTiles;  // groups of a part

  __device__ DigitsWarp(const BitmapDigitsArgs& a, int64_t first, int64_t last, unsigned char* shared)
      : a_(a), shared_(shared), panels_(static_cast<int>(last - first)), first_(first), quads_(static_cast<int>(NumQuads(a.k))) {
    const int parts = static_cast<int>(CeilDiv(a.k, kPartColumns)), warp = static_cast<int>(threadIdx.x) / 32;
    begin_ = ShareOf(parts, warp, kDigitWarps);
    count_ = ShareOf(parts, warp + 1, kDigitWarps) - begin_;
    lane_ = static_cast<int>(threadIdx.x) % 32;
    const int g = lane_ / 4, t = lane_ % 4;
    share_ = min(quads_ - begin_ * kPartQuads, count_ * kPartQuads);
    table_ = shared + lane_ % Layout::kCopies * kEntryBytes;
    write_ = Layout::kRing + warp * kDigitStages * Layout::kStage;
    write_sum_ = 2 * write_ + Layout::kStage;
    read_ = write_ + t * 32 + g / 4 * 16;
    read_sum_ = 2 * read_ + Layout::kStage;
    to_grid_ = write_ + Layout::kGrid + 16 * g - read_;
    below_ = (1u << 8 * (g % 4)) - 1;
    byte_ = 0x4440u + static_cast<uint32_t>(g % 4);
    digits_ = shared + Layout::kDigitsAt + begin_ * 2 * Layout::kDigitBytes + (kTokens == 1 ? g % 4 : g) * 64 + t * 16;
    group_sums_ = shared + Layout::GroupSums(a.k) + begin_ * kGroups * Layout::kGroupSumBytes + t * 8;
    // A lane prepares the scales and zero points of rows 2p and 2p + 1, p = lane % 8, of a group.
    group_ = lane_ / 8 < 2 * kGroups ? begin_ * kGroups + lane_ / 8 : a.groups;
    const int64_t group = first * a.groups + begin_ * kGroups + lane_ / 8;
    scale_at_ = reinterpret_cast<const uint8_t*>(a.scale) + group * 32 + lane_ % 8 * 4;
    zero_at_ = a.zero + group * 8 + lane_ % 4 * 2;
    mask_at_ = size_at_ = a.bitmap + (first * quads_ + begin_ * kPartQuads + 2 * lane_) * 8;  // two quads to a lane
    chunks_ = (count_ + 1) / 2;
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
      for (int chunk = 0; chunk < chunks_; ++chunk) size += Size(Masks(size_at_ + chunk * kMaskBytes, chunk, panel < panels_ ? share_ : 0));
      size_at_ += static_cast<int64_t>(quads_) * 8;
      PublishSize(panel, size);
    }
    __syncwarp();
  }

  // The first chunk, after the barrier.
  __device__ void Open() {
    SetNext(Begin(0, Offset(0)));
    EnterPanel();
    SetNext(Begin(1, Offset(1)));
    later_ = Begin(2, Offset(2));
    offset_ = Offset(3);
    if (count_ == 0) return;
    LoadChunk();
    Issue();
    LoadChunk();
  }

  // The barrier before this panel made the begin of the second panel after it known.
  __device__ void StartPanel(int panel) {
    SetNext(later_);
    later_ = Begin(panel + kDigitAhead, offset_);
    offset_ = Offset(panel + kDigitAhead + 1);
  }

  __device__ void MultiplyPanel(int panel) {
    const int ahead = panel + kDigitAhead + 1 < panels_ ? share_ : 0;
    int size = 0;
    uint4 sized = make_uint4(0, 0, 0, 0);
    unsigned char *digits = digits_, *group_sums = group_sums_;
    for (int chunk = 0; chunk < chunks_; ++chunk) {
      size += Size(sized);
      sized = Masks(size_at_ + chunk * kMaskBytes, chunk, ahead);
      CopyAsyncWait<0>();
      __syncwarp();  // this chunk is there for all lanes, and all have read the one before
      const bool last = chunk + 1 == chunks_;
      if (!last || panel + 1 < panels_) {
        if (last) EnterPanel();
        Issue();
        LoadChunk();
      }
#pragma unroll(kTokens <= 2 ? 2 : 1)  // as far as registers go
      for (int part = 0; part < 2; ++part) {
        if (2 * chunk + part < count_) Multiply(part, digits, group_sums);
      }
      digits += 4 * Layout::kDigitBytes;
      group_sums += 2 * kGroups * Layout::kGroupSumBytes;
      read_ = read_sum_ - read_;
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
  static constexpr int kMaskBytes = 16 * kPartQuads;  // of a chunk

  __device__ static int Bytes(int codes) { return static_cast<int>(static_cast<unsigned>(codes + 1) >> 1); }
  __device__ static int Size(uint4 masks) { return Bytes(__popc(masks.x) + __popc(masks.y)) + Bytes(__popc(masks.z) + __popc(masks.w)); }

  // The masks of this lane's two quads of a chunk, in a share of `quads`.
  __device__ uint4 Masks(const uint8_t* at, int chunk, int quads) const {
    return chunk * 2 * kPartQuads + 2 * lane_ < quads ? __ldg(reinterpret_cast<const uint4*>(at)) : make_uint4(0, 0, 0, 0);
  }

  // Masks, scales and zero points of the next chunk, for Issue.
  __device__ void LoadChunk() {
    masks_ = Masks(mask_at_, loaded_, loaded_panel_ < panels_ ? share_ : 0);
    scale_ = zero_ = 0;
    if (group_ + loaded_ * 2 * kGroups < (loaded_panel_ < panels_ ? a_.groups : 0)) {
      scale_ = __ldg(reinterpret_cast<const uint32_t*>(scale_at_));
      zero_ = __ldg(reinterpret_cast<const uint16_t*>(zero_at_));
    }
    mask_at_ += kMaskBytes;
    scale_at_ += 2 * kGroups * 32;
    zero_at_ += 2 * kGroups * 8;
    if (++loaded_ < chunks_) return;
    loaded_ = 0;
    ++loaded_panel_;
    mask_at_ += static_cast<int64_t>(quads_) * 8 - chunks_ * kMaskBytes;
    scale_at_ += (a_.groups - chunks_ * 2 * kGroups) * 32;
    zero_at_ += (a_.groups - chunks_ * 2 * kGroups) * 8;
  }

  __device__ int* Sizes(int panel) const { return reinterpret_cast<int*>(shared_ + Layout::kSizes) + panel % 4 * kDigitWarps; }
  __device__ float* Sums(int panel, int warp) const {
    return reinterpret_cast<float*>(shared_ + Layout::kSums + panel % 2 * Layout::kPanelSums) + warp * kTokens * kPanelRows;
  }
  __device__ static const uint4* Digits(const unsigned char* at, int tile) { return reinterpret_cast<const uint4*>(at + tile * 512); }
  __device__ static uint2* GroupSums(unsigned char* at, int tile) { return reinterpret_cast<uint2*>(at + tile * 32); }

  __device__ void PublishSize(int panel, int size) const {
    size = AddUpWarp(size);
    if (lane_ == 0) Sizes(panel)[threadIdx.x / 32] = size;
  }

  __device__ int64_t Offset(int panel) const { return panel < panels_ ? __ldg(a_.panel_offsets + first_ + panel) : 0; }

  // Where this warp's share of a panel begins; its first 4 KB are asked for.
  __device__ int64_t Begin(int panel, int64_t offset) const {
    const int warp = static_cast<int>(threadIdx.x) / 32;
    const int64_t begin = min(max(offset, int64_t{0}), a_.size) + AddUpWarp(lane_ < warp ? Sizes(panel)[lane_] : 0);
    if (128 * lane_ < Sizes(panel)[warp] && begin + 128 * lane_ < a_.size) PrefetchL2(a_.codes + begin + 128 * lane_);
    return begin;
  }

  // Survivors are those of the next panel from here on.
  __device__ void EnterPanel() {
    at_ = a_.codes + next_;
    left_ = next_left_;
  }

  __device__ void SetNext(int64_t begin) {
    next_ = begin;
    next_left_ = static_cast<int>(min(a_.size - begin, int64_t{1} << 30));
  }

  // Copies the survivors of the next chunk, `size` bytes from at_ on, as whole vectors; returns where in them they begin.
  __device__ int CopyCodes(int size, unsigned char* to) const {
    if (left_ < size + 15) return CopyRange<Layout::kMostBytes>(at_, a_.codes + a_.size, size, to);
    const int skew = static_cast<int>(reinterpret_cast<uintptr_t>(at_) & 15), end = skew + size - 16 * lane_;
    const uint8_t* const from = at_ - skew + 16 * lane_;
    to += 16 * lane_;
    if (end > 0) CopyAsync16(to, from);
    if (end > 512) CopyAsync16(to + 512, from + 512);
    if (end > 1024) CopyAsync16(to + 1024, from + 1024);
    if (skew + size > 1536) {
      if (end > 1536) CopyAsync16(to + 1536, from + 1536);
      if (end > 2048) CopyAsync16(to + 2048, from + 2048);
    }
    return skew;
  }

  // Places and copies the chunk that was loaded.
  __device__ void Issue() {
    const int low[2] = {__popc(masks_.x), __popc(masks_.z)}, first = Bytes(low[0] + __popc(masks_.y)), own = first + Bytes(low[1] + __popc(masks_.w));
    const int through = ScanOfWarp(own);
    unsigned char* const stage = shared_ + write_;
    const int size = __shfl_sync(0xffffffffu, through, 31), skew = CopyCodes(size, stage + Layout::kData);
    CopyAsyncCommit();
    const uint32_t start = static_cast<uint32_t>(write_ + Layout::kData + skew + through - own) * 8, second = start + static_cast<uint32_t>(first) * 8;  // in bits
    auto* const units = reinterpret_cast<uint4*>(stage) + 2 * lane_;
    units[0] = make_uint4(masks_.x, start, masks_.z, second);
    units[1] = make_uint4(masks_.y, start + 4 * static_cast<uint32_t>(low[0]), masks_.w, second + 4 * static_cast<uint32_t>(low[1]));
    const uint32_t zeros = zero_ >> lane_ % 8 / 4 * 4 & 0x0f0fu, zero[2] = {zeros & 255u, zeros >> 8};
    auto* const grid = reinterpret_cast<uint4*>(stage + Layout::kGrid) + lane_;
    grid[0] = make_uint4(zero[1] * 0x11111111u, zero[0] - zero[1], zero[0] * 0x01010101u, zero[1] * 0x01010101u);
    grid[32] = make_uint4(scale_ << 16, scale_ & 0xffff0000u, 0u - zero[0], 0u - zero[1]);
    write_ = write_sum_ - write_;
    at_ += size;
    left_ -= size;
  }

  __device__ static void MultiplyDigits(int (&sums)[4], const uint32_t (&first)[4], const uint32_t (&second)[4], uint4 digits) {
    const uint32_t low[2] = {digits.x, digits.y}, high[2] = {digits.z, digits.w};
    MmaU8S8(sums, first, low);
    MmaU8S8(sums, second, high);
  }

  // A row of a quad in a register each: codes, and the zero point where there are none.
  // zeros: of all codes those of the second row, what the first row's are more, and bytes of either row.
  __device__ void Expand(uint32_t mask, uint32_t start, const uint4& zeros, uint32_t& first, uint32_t& second) const {
    const uint32_t bit = start + 4 * static_cast<uint32_t>(__popc(mask & below_));
    const auto* const words = reinterpret_cast<const uint32_t*>(shared_ + (bit >> 3 & ~3u));
    const uint2 entry = *reinterpret_cast<const uint2*>(table_ + Permute(mask, 0, byte_) * (Layout::kCopies * kEntryBytes));
    const ExpandedRows rows = ExpandCodes(__funnelshift_r(words[0], words[1], bit), entry, zeros.x, zeros.y);
    first = (rows.first & 0x0f0f0f0fu) ^ zeros.z;
    second = (rows.second & 0x0f0f0f0fu) ^ zeros.w;
  }

  __device__ void Multiply(int part, const unsigned char* digits, unsigned char* group_sums) {
    constexpr uint32_t kMagic = 0x4b400000;  // of 1.5 * 2^23
    const unsigned char *const stage = shared_ + read_ + part * 512, *const grid = shared_ + read_ + to_grid_ + part * kGroups * 128;
    digits += part * 2 * Layout::kDigitBytes;
    group_sums += part * kGroups * Layout::kGroupSumBytes;
#pragma unroll
    for (int group = 0; group < kGroups; ++group) {
      const uint4 zeros = *reinterpret_cast<const uint4*>(grid + group * 128), factors = *reinterpret_cast<const uint4*>(grid + group * 128 + 512);
      int sums[kTiles][4];
#pragma unroll
      for (int tile = 0; tile < kTiles; ++tile) {
        const uint2 all = *GroupSums(group_sums + group * Layout::kGroupSumBytes, tile);
#pragma unroll
        for (int i = 0; i < 4; ++i) sums[tile][i] = static_cast<int>(kMagic + (i < 2 ? factors.z : factors.w) * (i % 2 == 0 ? all.x : all.y));
      }
#pragma unroll
      for (int half = group * (kGroup / 64); half < (group + 1) * (kGroup / 64); ++half) {
        uint32_t codes[2][4];
#pragma unroll
        for (int block = 0; block < 2; ++block) {
          const uint4 units = *reinterpret_cast<const uint4*>(stage + (half * 2 + block) * 128);
          Expand(units.x, units.y, zeros, codes[block][0], codes[block][1]);
          Expand(units.z, units.w, zeros, codes[block][2], codes[block][3]);
        }
#pragma unroll
        for (int tile = 0; tile < kTiles; ++tile) {
          MultiplyDigits(sums[tile], codes[0], codes[1], *Digits(digits + half * Layout::kDigitBytes, tile));
        }
      }
#pragma unroll
      for (int tile = 0; tile < kTiles; ++tile) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const float sum = BitsToFloat(static_cast<uint32_t>(sums[tile][i])) - BitsToFloat(kMagic);
          sums_[tile][i] = __fmaf_rn(BitsToFloat(i < 2 ? factors.x : factors.y), sum, sums_[tile][i]);
        }
      }
    }
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
  int begin_, count_, chunks_;  // of the share: parts, two to a chunk
  int lane_, share_;            // share_: quads
  int write_, read_, to_grid_;  // offsets of the stage that is issued next, and of this lane's units in that which is read
  int write_sum_, read_sum_;    // of both stages
  const unsigned char* table_;
  uint32_t below_, byte_;
  unsigned char *digits_, *group_sums_;
  const uint8_t *scale_at_, *zero_at_, *mask_at_, *size_at_;
  int group_;             // that this lane prepares, of the first chunk
  const uint8_t* at_;     // the survivors of the chunk that is issued next
  int left_;              // of the stream behind, at most 2^30
  int next_left_;
  int64_t next_, later_;  // where the next panel begins, and the one after it
  int64_t offset_;
  uint4 masks_;            // of the chunk that is issued next
  uint32_t scale_, zero_;  // of this lane's group
  int loaded_ = 0, loaded_panel_ = 0;
  float factor_[kTiles] = {}, sums_[kTiles][4] = {};
};

}  // namespace prism::cuda
