// A weight in tiles of 16 x 16 on the GPU as raw pointers; prism_kernels/reference/tiered.py is the specification.
#pragma once
#include <cuda_runtime.h>

#include <cstdint>

#include "../common/panels.h"

namespace prism::cuda {

inline constexpr int kTileColumns = 16;
inline constexpr int kTileMaskBytes = 32;

struct TieredBlocks {
  const uint8_t* tiers;          // [panels, tiles]: 0 dense, 1 and 2 with a mask, 3 empty
  const uint8_t* masks;          // [num_masks, 32], aligned to 16 bytes
  const void* values;            // [num_values] of dtype
  const int64_t* panel_offsets;  // [panels + 1, 2]: where panels begin in masks and in values
  int64_t num_masks, num_values, n, k;
  DType dtype;

  PRISM_HOST_DEVICE int64_t Tiles() const { return CeilDiv(k, kTileColumns); }
};

}  // namespace prism::cuda
