// Codes out of bit planes, whole weights at a time: a warp takes a chunk of 16 rows x 64 columns, a lane 4 rows x 8 columns,
// so that reads of a plane are 16 bytes per lane and eight lanes write 64 neighbouring columns of a row.
#pragma once
#include "../../common/codebooks.h"
#include "../../common/panels.h"
#include "ptx.cuh"

namespace prism::cuda {

inline constexpr int64_t kChunkColumns = 64;
inline constexpr int kChunkRows = 4;     // of a lane
inline constexpr int kChunkThreads = 256;  // 8 warps, a chunk each

struct PlaneChunks {
  const uint8_t* codes;  // [panels, blocks, bits, 64], aligned to 16 bytes
  int64_t n, k;
  int bits;

  PRISM_HOST_DEVICE int64_t PerPanel() const { return CeilDiv(k, kChunkColumns); }
  PRISM_HOST_DEVICE int64_t Count() const { return NumPanels(n) * PerPanel(); }
};

// A lane's part of chunk `chunk`. Rows from `row` on, columns from `column` on, which may lie past n and k.
class PlaneChunk {
 public:
  __device__ PlaneChunk(const PlaneChunks& all, int64_t chunk) {
    const int lane = threadIdx.x % 32;
    panel = chunk / all.PerPanel();
    row_in_panel = lane / 8 * kChunkRows;
    row = panel * kPanelRows + row_in_panel;
    column = chunk % all.PerPanel() * kChunkColumns + lane % 8 * 8;
    const int64_t blocks = NumBlocks32(all.k), block = column / kBlockColumns;
    if (block >= blocks) return;
    const uint8_t* const planes = all.codes + (panel * blocks + block) * all.bits * kQuadBytes + 4 * row_in_panel;
    const int pair = lane % 4;  // of quads
    const PlaneWidths widths = PlaneWidthsOf(all.bits);
    AddPlane(planes, widths.low, pair, 0);
    if (widths.high != 0) AddPlane(planes + widths.low * kQuadBytes, widths.high, pair, widths.low);
  }

  int64_t panel, row, column;
  int row_in_panel;
  uint32_t quads[kChunkRows][2] = {};  // byte b is column kQuadOrder[b] of the quad

 private:
  // Adds `width` bits, from bit `shift` of the codes on.
  __device__ void AddPlane(const uint8_t* vectors, int width, int pair, int shift) {
    const int per_vector = 8 / width;
    const uint32_t mask = ((1u << width) - 1u) * 0x01010101u;
    uint4 words = LoadOnce16(vectors + 2 * pair / per_vector * kQuadBytes);
#pragma unroll
    for (int which = 0; which < 2; ++which) {
      if (which == 1 && width == 8) words = LoadOnce16(vectors + (2 * pair + 1) * kQuadBytes);
      const int right = (2 * pair + which) % per_vector * width;
      quads[0][which] |= (words.x >> right & mask) << shift;
      quads[1][which] |= (words.y >> right & mask) << shift;
      quads[2][which] |= (words.z >> right & mask) << shift;
      quads[3][which] |= (words.w >> right & mask) << shift;
    }
  }
};

}  // namespace prism::cuda
