// Codes behind a bitmap and their grid, decoded quad by quad: what the decoder and the plain linear share.
#pragma once
#include "../../common/codebooks.h"
#include "bitmap.cuh"
#include "ptx.cuh"

namespace prism::cuda {

inline constexpr int kLevelBytes = 16 * sizeof(float);

struct BitmapCodesGrid {
  const uint8_t* bitmap;         // [panels, ceil(k / 4), 8]
  const uint8_t* codes;          // [size]
  const int64_t* panel_offsets;  // [panels + 1]
  const uint16_t* scale;         // bfloat16 [panels, groups, 16]
  const uint8_t* zero;           // [panels, groups, ZeroBytes(bits)], none where the codebook has none
  int64_t size, group_size, groups;
  int bits;
  Codebook codebook;

  // The levels of the codebook, to shared memory that is read after the next barrier.
  __device__ void LoadLevels(float* levels) const {
    constexpr float kNf4[16] = {kNf4Levels[0], kNf4Levels[1], kNf4Levels[2], kNf4Levels[3], kNf4Levels[4], kNf4Levels[5],
                                kNf4Levels[6], kNf4Levels[7], kNf4Levels[8], kNf4Levels[9], kNf4Levels[10], kNf4Levels[11],
                                kNf4Levels[12], kNf4Levels[13], kNf4Levels[14], kNf4Levels[15]};
    constexpr float kNf3[8] = {kNf3Levels[0], kNf3Levels[1], kNf3Levels[2], kNf3Levels[3],
                               kNf3Levels[4], kNf3Levels[5], kNf3Levels[6], kNf3Levels[7]};
    if (codebook == Codebook::kUniform || threadIdx.x != 0) return;
#pragma unroll  // so that the tables are constants in the code, not an array in local memory
    for (int i = 0; i < 16; ++i) levels[i] = codebook == Codebook::kNf4 ? kNf4[i] : kNf3[i % 8];
  }

  __device__ float ZeroPoint(int64_t group_of_panel, int row) const {
    if (codebook != Codebook::kUniform) return 0.0f;
    if (bits > 4) return static_cast<float>(zero[group_of_panel * kPanelRows + row]);
    return static_cast<float>(zero[group_of_panel * 8 + row % 8] >> (row < 8 ? 0 : 4) & 15);
  }

  // body(row, values) for the 16 rows of a quad: (q - z) * s, or level[q] * s, of columns 0 to 3; 0 where pruned.
  template <class Body>
  __device__ void ForRows(int64_t panel, int64_t quad, int64_t k, const Unit<4>& mask, int64_t position,
                          const float* levels, Body body) const {
    const int64_t last_column = min(4 * quad + 3, k - 1);
    const int64_t group = 4 * quad / group_size;
    const bool one_group = last_column / group_size == group;
    int64_t next = 0;  // code of the quad
    for (int row = 0; row < kPanelRows; ++row) {
      const uint32_t kept = mask.Row(row);
      const float s = BFloat16ToFloat(scale[(panel * groups + group) * kPanelRows + row]);
      const float z = ZeroPoint(panel * groups + group, row);
      float values[4] = {};
#pragma unroll
      for (int b = 0; b < 4; ++b) {
        if ((kept >> b & 1) == 0) continue;
        const int column = UnitColumn<4>(b);
        const int code = Code(position, next++);
        float own_scale = s, own_zero = z;
        if (!one_group) {
          const int64_t own = panel * groups + min(4 * quad + column, k - 1) / group_size;
          own_scale = BFloat16ToFloat(scale[own * kPanelRows + row]);
          own_zero = ZeroPoint(own, row);
        }
        values[column] = (codebook == Codebook::kUniform ? static_cast<float>(code) - own_zero : levels[code]) * own_scale;
      }
      body(row, values);
    }
  }

 private:
  // 0 past the end of the codes.
  __device__ int Code(int64_t position, int64_t index) const {
    const bool stored = position >= 0 && position + PackedBytes(index + 1, bits) <= size;
    return stored ? static_cast<int>(CodeAt(codes + position, index, bits)) : 0;
  }
};

}  // namespace prism::cuda
