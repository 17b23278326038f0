// A pair of columns at a time: the survivors of 16 rows x 2 columns are expanded to their places and multiplied with a
// broadcast pair of activations, one row per lane. Few tokens multiply straight from the registers; for more, a chunk of
// two panels is decoded into the first-level cache and multiplied with every group of tokens.
#include "tiered_linear.h"

#include "isa.h"

#if PRISM_X86
#include <immintrin.h>

#include <array>

#include "tiered_avx512.h"
#include "unroll.h"

PRISM_TARGET_BEGIN(PRISM_TARGET_AVX512_BF16)
namespace prism::cpu::avx512_bf16 {
namespace {

PRISM_DEFINE_UNROLL

constexpr int kGroup = 12;
constexpr int kDirectTokens = kTieredDirectTokens;  // up to here without the chunk
constexpr int64_t kChunkTiles = 16;
constexpr int64_t kPairBytes = 64;
constexpr int64_t kChunkBytes = kChunkTiles * kTilePairs * kPairBytes;

inline PRISM_INLINE __m512bh BroadcastPair(const uint32_t* pair) {
  return (__m512bh)_mm512_set1_epi32(static_cast<int>(*pair));
}

// The 8 pairs of a tile, each given to use(index, weights); returns the bytes of values that the tile had.
template <class Use>
inline PRISM_INLINE int64_t ForEachPair(const TileStream& stream, Use use) {
  const uint8_t *mask = stream.mask(), *values = stream.values();
  _mm_prefetch(mask + 1024, _MM_HINT_T0);
  Unroll<kTilePairs>([&](auto j) PRISM_INLINE {
    uint32_t bits;
    std::memcpy(&bits, mask + 4 * j, sizeof bits);
    _mm_prefetch(values + avx512::kPrefetchBytes, _MM_HINT_T0);
    use(j, avx512::ExpandWords(bits, _mm512_loadu_si512(values)));
    values += 2 * _mm_popcnt_u32(bits);
  });
  return values - stream.values();
}

// One panel times kTokens tokens, x [pairs, kTokens].
template <int kTokens>
__attribute__((noinline)) void MultiplyPanel(const TieredBlocks& w, const TieredLinearArgs& args, int64_t panel) {
  constexpr int kSums = kTokens <= 2 ? 4 : kTokens <= 8 ? 2 : 1;  // independent ones per token
  __m512 sum[kTokens][kSums];
  Unroll<kTokens>([&](auto t) PRISM_INLINE {
    Unroll<kSums>([&](auto i) PRISM_INLINE { sum[t][i] = _mm512_setzero_ps(); });
  });
  TileCopy copy;
  TileStream stream(w, panel, &copy);
  const uint32_t* x = static_cast<const uint32_t*>(args.x);
  for (int64_t tiles = NumTiles(w.k); tiles > 0; --tiles, x += kTilePairs * kTokens) {
    if (!stream.Open()) continue;
    stream.Close(ForEachPair(stream, [&](auto j, __m512i weight) PRISM_INLINE {
      Unroll<kTokens>([&](auto t) PRISM_INLINE {
        __m512& total = sum[t][j % kSums];
        total = _mm512_dpbf16_ps(total, (__m512bh)weight, BroadcastPair(x + j * kTokens + t));
      });
    }));
  }
  Unroll<kTokens>([&](auto t) PRISM_INLINE {
    __m512 total = sum[t][0];
    if constexpr (kSums >= 2) total = _mm512_add_ps(total, sum[t][1]);
    if constexpr (kSums == 4) total = _mm512_add_ps(total, _mm512_add_ps(sum[t][2], sum[t][3]));
    avx512::StoreOutputs(total, args, t, panel * kPanelRows);
  });
}

// sums [kCount, kTokens, 16] += decoded [kCount, pairs, 32] times x [pairs, kTokens].
template <int kCount, int kTokens>
__attribute__((noinline)) void MultiplyChunk(const uint8_t* decoded, int64_t pairs, const uint32_t* x, float* sums,
                                             int64_t sums_stride) {
  __m512 sum[kCount][kTokens];
  Unroll<kCount>([&](auto p) PRISM_INLINE {
    Unroll<kTokens>([&](auto t) PRISM_INLINE { sum[p][t] = _mm512_loadu_ps(sums + p * sums_stride + t * kPanelRows); });
  });
  for (int64_t j = 0; j < pairs; ++j, decoded += kPairBytes, x += kTokens) {
    __m512bh weight[kCount];
    Unroll<kCount>([&](auto p) PRISM_INLINE { weight[p] = (__m512bh)_mm512_load_si512(decoded + p * kChunkBytes); });
    Unroll<kTokens>([&](auto t) PRISM_INLINE {
      const __m512bh xt = BroadcastPair(x + t);
      Unroll<kCount>([&](auto p) PRISM_INLINE { sum[p][t] = _mm512_dpbf16_ps(sum[p][t], weight[p], xt); });
    });
  }
  Unroll<kCount>([&](auto p) PRISM_INLINE {
    Unroll<kTokens>([&](auto t) PRISM_INLINE { _mm512_storeu_ps(sums + p * sums_stride + t * kPanelRows, sum[p][t]); });
  });
}

// `tiles` tiles as pairs of columns, [pairs, 16 rows, 2].
void DecodeTiles(TileStream& walk, int64_t tiles, uint8_t* decoded) {
  TileStream stream = walk;  // in registers
  for (; tiles > 0; --tiles, decoded += kTilePairs * kPairBytes) {
    if (stream.Open()) {
      stream.Close(ForEachPair(stream, [&](auto j, __m512i weight) PRISM_INLINE {
        _mm512_store_si512(decoded + j * kPairBytes, weight);
      }));
    } else {
      std::memset(decoded, 0, kTilePairs * kPairBytes);
    }
  }
  walk = stream;
}

using MultiplyChunkFn = void (*)(const uint8_t*, int64_t, const uint32_t*, float*, int64_t);

// By the number of tokens, from 1.
template <int kCount, int... kIndex>
constexpr std::array<MultiplyChunkFn, sizeof...(kIndex)> ChunkTable(std::integer_sequence<int, kIndex...>) {
  return {MultiplyChunk<kCount, kIndex + 1>...};
}

template <int kCount>
void MultiplyPanels(const TieredBlocks& w, const TieredLinearArgs& args, int64_t panel, float* sums) {
  static constexpr auto kMultiply = ChunkTable<kCount>(std::make_integer_sequence<int, kGroup>());
  const TokenGroups groups(args.m, kGroup);
  const int64_t tiles = NumTiles(w.k), stride = args.m * kPanelRows;
  alignas(64) uint8_t decoded[kCount * kChunkBytes];
  TileCopy copy;
  std::array<TileStream, kCount> streams = [&]<int... kIndex>(std::integer_sequence<int, kIndex...>) {
    return std::array<TileStream, kCount>{TileStream(w, panel + kIndex, &copy)...};
  }(std::make_integer_sequence<int, kCount>());
  std::fill(sums, sums + kCount * stride, 0.0f);
  for (int64_t begin = 0; begin < tiles; begin += kChunkTiles) {
    const int64_t count = std::min(kChunkTiles, tiles - begin);
    for (int p = 0; p < kCount; ++p) DecodeTiles(streams[p], count, decoded + p * kChunkBytes);
    const uint32_t* x = static_cast<const uint32_t*>(args.x);
    for (int64_t g = 0; g < groups.count; ++g) {
      const int64_t first = groups.First(g), tokens = groups.First(g + 1) - first;
      kMultiply[tokens - 1](decoded, count * kTilePairs, x + (first * NumTiles(w.k) + begin * tokens) * kTilePairs,
                            sums + first * kPanelRows, stride);
    }
  }
  for (int p = 0; p < kCount; ++p) {
    for (int64_t t = 0; t < args.m; ++t) {
      const __m512 total = _mm512_loadu_ps(sums + p * stride + t * kPanelRows);
      avx512::StoreOutputs(total, args, t, (panel + p) * kPanelRows);
    }
  }
}

using MultiplyPanelFn = void (*)(const TieredBlocks&, const TieredLinearArgs&, int64_t);
template <int... kIndex>
constexpr std::array<MultiplyPanelFn, sizeof...(kIndex)> PanelTable(std::integer_sequence<int, kIndex...>) {
  return {MultiplyPanel<kIndex + 1>...};
}
constexpr auto kDirect = PanelTable(std::make_integer_sequence<int, kDirectTokens>());

}  // namespace

void TieredLinear(const TieredBlocks& w, const TieredLinearArgs& args, int64_t begin, int64_t end) {
  int64_t panel = begin;
  if (args.m == 0) return;
  if (args.m <= kDirectTokens) {
    for (; panel < end; ++panel) kDirect[args.m - 1](w, args, panel);
    return;
  }
  std::vector<float> sums(static_cast<size_t>(2 * args.m * kPanelRows));
  for (; panel + 2 <= end; panel += 2) MultiplyPanels<2>(w, args, panel, sums.data());
  if (panel < end) MultiplyPanels<1>(w, args, panel, sums.data());
}

}  // namespace prism::cpu::avx512_bf16
PRISM_TARGET_END
#endif
