// obs_sweep on the GPU; the same results as csrc/cpu/obs_sweep.h, bit for bit. Raw pointers, no torch.
#pragma once
#include <cuda_runtime.h>

#include <cstdint>

namespace prism::cuda {

struct ObsSweepArgs {
  const float* weight;           // [n, b]
  const float* factor;           // [b, b], what lies below the diagonal is not read
  const bool* mask;              // [n, b]; null: chosen by n:m where m > 0, otherwise all kept
  const uint16_t* column_scale;  // bfloat16 [b]; null: 1 everywhere
  const uint16_t* scale;         // bfloat16 [n, groups], given grids; null: found at each group's start
  const uint8_t* zero;           // [n, groups]
  int64_t n, b, n_keep, m, bits, group_size, groups;
  float* compensated;            // [n, b]
  float* error;                  // [n, b]
  bool* kept;                    // [n, b]
  uint8_t* codes;                // [n, b] where bits > 0
  uint16_t* scale_out;           // bfloat16 [n, groups]
  uint8_t* zero_out;             // [n, groups]
  unsigned char* workspace;      // ObsSweepWorkspace(n, b) bytes, aligned to 16
};

// 0 where a block of the kernel holds its columns in shared memory, as it does for all usual widths.
int64_t ObsSweepWorkspace(int64_t n, int64_t b);
cudaError_t ObsSweep(const ObsSweepArgs& args, cudaStream_t stream);

}  // namespace prism::cuda
