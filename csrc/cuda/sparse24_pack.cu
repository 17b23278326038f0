// One thread per step of two neighbouring rows, 2 x 32 weights: it owns both words of their columns, and all of its pairs or
// all four words of its codes. Packing runs once per weight, when it lands on the device, and is not tuned. Unpacking comes
// before every dense product: it stores 16 bytes at once, 64 to a row; its bound is the bytes of the dense weight.
#include "sparse24_pack.cuh"

#include "common/launch.cuh"
#include "common/sparse24.cuh"

namespace prism::cuda {
namespace {

constexpr int kThreads = 128;

// What thread `index` owns: step `step` of tile `tile` of rows 2 g and 2 g + 1 of a panel.
struct Unit {
  int64_t tile;  // of all tiles of all panels
  int64_t row, column;
  int g, step;
};

__device__ Unit UnitOf(int64_t index, int64_t tiles) {
  const int step = static_cast<int>(index % 2), g = static_cast<int>(index / 2 % 8);
  const int64_t tile = index / 16;
  return {tile, tile / tiles * kPanelRows + 2 * g, tile % tiles * kSparseTileColumns + step * kSparseStepColumns, g, step};
}

struct Chosen {
  int first, second;       // columns of the quad
  bool has_first, has_second;  // whether the mask keeps them; where not, 0 is stored
};

// The first two kept columns, then the first pruned ones, in rising order. The mask ends after `width` columns.
__device__ Chosen ChooseTwo(const bool* mask, int width) {
  int kept[2] = {0, 0}, pruned[2] = {0, 0}, num_kept = 0, num_pruned = 0;
  for (int column = 0; column < 4; ++column) {
    const bool keeps = column < width && mask[column];
    if (keeps && num_kept < 2) (num_kept == 0 ? kept[0] : kept[1]) = column, ++num_kept;
    if (!keeps && num_pruned < 2) (num_pruned == 0 ? pruned[0] : pruned[1]) = column, ++num_pruned;
  }
  if (num_kept == 2) return {kept[0], kept[1], true, true};
  if (num_kept == 0) return {pruned[0], pruned[1], false, false};
  return kept[0] < pruned[0] ? Chosen{kept[0], pruned[0], true, false} : Chosen{pruned[0], kept[0], false, true};
}

__device__ int64_t Width(int64_t column, int64_t k) { return min(max(k - column, int64_t{0}), kQuadColumns); }

template <class Element>
__global__ void Sparse24PackKernel(const Element* __restrict__ weight, const bool* __restrict__ mask, int64_t n, int64_t k,
                                   int64_t tiles, int64_t units, uint16_t* values, uint32_t* words,
                                   uint32_t* __restrict__ columns) {
  const int64_t index = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (index >= units) return;
  const Unit unit = UnitOf(index, tiles);
  uint32_t held[2] = {0, 0}, codes[4] = {0, 0, 0, 0};
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const int64_t row = unit.row + h;
#pragma unroll
    for (int quad = 0; quad < kSparseStepQuads; ++quad) {
      const int64_t column = unit.column + kQuadColumns * quad, at = row * k + column;
      const int width = row < n ? static_cast<int>(Width(column, k)) : 0;
      const Chosen chosen = ChooseTwo(mask + at, width);
      const uint32_t first = chosen.has_first ? weight[at + chosen.first] : 0;
      const uint32_t second = chosen.has_second ? weight[at + chosen.second] : 0;
      const SparsePlace place = PlaceOf(unit.g, h, unit.step, quad);
      held[place.columns_lane % 2] |= static_cast<uint32_t>(chosen.first | chosen.second << 2) << place.columns_bit;
      if (sizeof(Element) == 2) {
        auto* const pairs = reinterpret_cast<uint32_t*>(values) + ((unit.tile * 2 + unit.step) * 32 + place.lane) * 4;
        pairs[place.reg] = first | second << 16;
      } else {
        codes[place.lane % 4] |= ((first & 15) | (second & 15) << 16) << 4 * place.reg;
      }
    }
  }
  for (int i = 0; i < 2; ++i) columns[unit.tile * 32 + 4 * unit.g + 2 * unit.step + i] = held[i];
  if (sizeof(Element) == 1) {
    for (int t = 0; t < 4; ++t) words[(unit.tile * 32 + 4 * unit.g + t) * 2 + unit.step] = codes[t];
  }
}

// A quad of 16-bit elements as two words, of codes as the bytes of one; element c of it is that half of `pair`, or 0.
__device__ uint32_t ElementOf(uint32_t pair, uint32_t held, uint32_t column) {
  return column == (held & 3) ? pair & 0xffffu : column == (held >> 2 & 3) ? pair >> 16 : 0;
}

// Words of 4 bytes of 2 x 32 weights; `vectors`: rows begin at multiples of 16 bytes, and so full ones are stored.
template <class Element>
__global__ void Sparse24UnpackKernel(const uint32_t* __restrict__ pairs, const uint32_t* __restrict__ columns, int64_t n,
                                     int64_t k, int64_t tiles, int64_t units, bool vectors, Element* __restrict__ weight) {
  constexpr int kQuadWords = sizeof(Element), kStepWords = kSparseStepQuads * kQuadWords;
  const int64_t index = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (index >= units) return;
  const Unit unit = UnitOf(index, tiles);
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    uint32_t step[kStepWords];
#pragma unroll
    for (int quad = 0; quad < kSparseStepQuads; ++quad) {
      const SparsePlace place = PlaceOf(unit.g, h, unit.step, quad);
      const uint32_t held = columns[unit.tile * 32 + place.columns_lane] >> place.columns_bit;
      if constexpr (sizeof(Element) == 2) {
        const uint32_t pair = pairs[((unit.tile * 2 + unit.step) * 32 + place.lane) * 4 + place.reg];
        step[2 * quad] = ElementOf(pair, held, 0) | ElementOf(pair, held, 1) << 16;
        step[2 * quad + 1] = ElementOf(pair, held, 2) | ElementOf(pair, held, 3) << 16;
      } else {
        const uint32_t pair = pairs[(unit.tile * 32 + place.lane) * 2 + unit.step] >> 4 * place.reg & 0x000f000fu;
        step[quad] = ElementOf(pair, held, 0) | ElementOf(pair, held, 1) << 8 | ElementOf(pair, held, 2) << 16 |
                     ElementOf(pair, held, 3) << 24;
      }
    }
    const int64_t row = unit.row + h;
    if (row >= n) continue;
    Element* const out = weight + row * k + unit.column;
    if (vectors && unit.column + kSparseStepColumns <= k) {
#pragma unroll
      for (int i = 0; i < kStepWords; i += 4) {
        reinterpret_cast<uint4*>(out)[i / 4] = make_uint4(step[i], step[i + 1], step[i + 2], step[i + 3]);
      }
      continue;
    }
#pragma unroll
    for (int c = 0; c < kSparseStepColumns; ++c) {
      constexpr int kPerWord = 4 / sizeof(Element);
      if (unit.column + c < k) out[c] = static_cast<Element>(step[c / kPerWord] >> 8 * sizeof(Element) * (c % kPerWord));
    }
  }
}

struct Work {
  int64_t tiles, units;
  unsigned blocks;
};

Work WorkOf(int64_t n, int64_t k) {
  const int64_t tiles = NumSparseTiles(k), units = NumPanels(n) * tiles * 16;
  return {tiles, units, static_cast<unsigned>(CeilDiv(units, kThreads))};
}

template <class Element>
cudaError_t Pack(const Element* weight, const bool* mask, int64_t n, int64_t k, uint16_t* values, uint32_t* words,
                 uint32_t* columns, cudaStream_t stream) {
  const Work work = WorkOf(n, k);
  if (work.units == 0) return cudaSuccess;
  return Launch(Sparse24PackKernel<Element>, work.blocks, kThreads, 0, stream, weight, mask, n, k, work.tiles, work.units,
                values, words, columns);
}

template <class Element>
cudaError_t Unpack(const uint32_t* pairs, const uint32_t* columns, int64_t n, int64_t k, Element* weight,
                   cudaStream_t stream) {
  const bool vectors = k * sizeof(Element) % 16 == 0 && reinterpret_cast<uintptr_t>(weight) % 16 == 0;
  const Work work = WorkOf(n, k);
  if (work.units == 0) return cudaSuccess;
  return Launch(Sparse24UnpackKernel<Element>, work.blocks, kThreads, 0, stream, pairs, columns, n, k, work.tiles,
                work.units, vectors, weight);
}

}  // namespace

cudaError_t Sparse24Pack(const uint16_t* weight, const bool* mask, int64_t n, int64_t k, uint16_t* values,
                         uint32_t* columns, cudaStream_t stream) {
  return Pack(weight, mask, n, k, values, nullptr, columns, stream);
}

cudaError_t Sparse24PackCodes(const uint8_t* codes, const bool* mask, int64_t n, int64_t k, uint32_t* words,
                              uint32_t* columns, cudaStream_t stream) {
  return Pack(codes, mask, n, k, nullptr, words, columns, stream);
}

cudaError_t Sparse24Unpack(const uint16_t* values, const uint32_t* columns, int64_t n, int64_t k, uint16_t* weight,
                           cudaStream_t stream) {
  return Unpack(reinterpret_cast<const uint32_t*>(values), columns, n, k, weight, stream);
}

cudaError_t Sparse24UnpackCodes(const uint32_t* words, const uint32_t* columns, int64_t n, int64_t k, uint8_t* codes,
                                cudaStream_t stream) {
  return Unpack(words, columns, n, k, codes, stream);
}

}  // namespace prism::cuda
