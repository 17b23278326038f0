// Packing: a thread makes one word of one vector of a plane, that is 8 / width quads of one row. Unpacking: chunks of 16 rows
// x 64 columns (common/plane_chunk.cuh), 8 bytes stored per lane and row.
#include "dual_shift_pack.cuh"

#include "common/plane_chunk.cuh"

namespace prism::cuda {
namespace {

constexpr int kPackThreads = 256;

// The codes of the quad at `column` of a row in the order of its bytes, 0 past k.
__device__ uint32_t GatherQuad(const uint8_t* row, int64_t column, int64_t k) {
  uint32_t quad = 0;
#pragma unroll
  for (int b = 0; b < kQuadColumns; ++b) {
    const int64_t at = column + (b == 1 ? 2 : b == 2 ? 1 : b);  // kQuadOrder
    if (at < k) quad |= static_cast<uint32_t>(row[at]) << 8 * b;
  }
  return quad;
}

__global__ void __launch_bounds__(kPackThreads) DualShiftPackKernel(const uint8_t* codes, int64_t n, int64_t k, int bits,
                                                                    uint32_t* packed) {
  const int64_t blocks = NumBlocks32(k), index = static_cast<int64_t>(blockIdx.x) * kPackThreads + threadIdx.x;
  if (index >= NumPanels(n) * blocks * bits * kPanelRows) return;
  const int64_t vector_index = index / kPanelRows, block_index = vector_index / bits;
  const int64_t row = block_index / blocks * kPanelRows + index % kPanelRows, column = block_index % blocks * kBlockColumns;
  const PlaneWidths widths = PlaneWidthsOf(bits);
  int vector = static_cast<int>(vector_index % bits), width = widths.low, shift = 0;
  if (vector >= widths.low) vector -= widths.low, width = widths.high, shift = widths.low;
  const int per_vector = 8 / width;
  const uint32_t mask = ((1u << width) - 1u) * 0x01010101u;
  uint32_t word = 0;
  for (int f = 0; f < per_vector && row < n; ++f) {
    const uint32_t quad = GatherQuad(codes + row * k, column + (vector * per_vector + f) * kQuadColumns, k);
    word |= (quad >> shift & mask) << width * f;
  }
  packed[index] = word;
}

__global__ void __launch_bounds__(kChunkThreads) DualShiftUnpackKernel(PlaneChunks chunks, uint8_t* codes, bool aligned) {
  const int64_t index = static_cast<int64_t>(blockIdx.x) * (kChunkThreads / 32) + threadIdx.x / 32;
  if (index >= chunks.Count()) return;
  const PlaneChunk chunk(chunks, index);
#pragma unroll
  for (int r = 0; r < kChunkRows; ++r) {
    if (chunk.row + r >= chunks.n || chunk.column >= chunks.k) break;
    uint8_t* const to = codes + (chunk.row + r) * chunks.k + chunk.column;
    const uint32_t first = __byte_perm(chunk.quads[r][0], 0, 0x3120), second = __byte_perm(chunk.quads[r][1], 0, 0x3120);
    if (aligned) {
      *reinterpret_cast<uint2*>(to) = make_uint2(first, second);
      continue;
    }
#pragma unroll
    for (int c = 0; c < 8; ++c) {
      if (chunk.column + c < chunks.k) to[c] = static_cast<uint8_t>((c < 4 ? first : second) >> 8 * (c % 4));
    }
  }
}

}  // namespace

cudaError_t DualShiftPack(const uint8_t* codes, int64_t n, int64_t k, int bits, uint8_t* packed, cudaStream_t stream) {
  const int64_t words = NumPanels(n) * NumBlocks32(k) * bits * kPanelRows;
  if (words == 0) return cudaSuccess;
  return Launch(DualShiftPackKernel, static_cast<unsigned>(CeilDiv(words, int64_t{kPackThreads})), kPackThreads, 0, stream,
                codes, n, k, bits, reinterpret_cast<uint32_t*>(packed));
}

cudaError_t DualShiftUnpack(const uint8_t* packed, int64_t n, int64_t k, int bits, uint8_t* codes, cudaStream_t stream) {
  const PlaneChunks chunks{packed, n, k, bits};
  if (chunks.Count() == 0) return cudaSuccess;
  const bool aligned = k % 8 == 0 && reinterpret_cast<uintptr_t>(codes) % 8 == 0;
  return Launch(DualShiftUnpackKernel, static_cast<unsigned>(CeilDiv(chunks.Count(), int64_t{kChunkThreads / 32})),
                kChunkThreads, 0, stream, chunks, codes, aligned);
}

}  // namespace prism::cuda
