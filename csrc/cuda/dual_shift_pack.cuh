// dual_shift_pack and dual_shift_unpack on the GPU: codes, one per byte, to the bit planes of panels (common/panels.h) and
// back; only the low `bits` bits of a code are stored, and 0 past n and k. Raw pointers, no torch.
#pragma once
#include <cuda_runtime.h>

#include <cstdint>

namespace prism::cuda {

cudaError_t DualShiftPack(const uint8_t* codes,  // [n, k]
                          int64_t n, int64_t k, int bits,
                          uint8_t* packed,  // [panels, blocks, bits, 64], aligned to 4 bytes
                          cudaStream_t stream);

cudaError_t DualShiftUnpack(const uint8_t* packed,  // [panels, blocks, bits, 64], aligned to 16 bytes
                            int64_t n, int64_t k, int bits,
                            uint8_t* codes,  // [n, k]
                            cudaStream_t stream);

}  // namespace prism::cuda
