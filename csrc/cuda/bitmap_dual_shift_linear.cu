// Few tokens and 4 uniform bits by integers (common/bitmap_digits.cuh); tensor cores (common/bitmap_mma.cuh) for 16-bit or quantized activations and groups of whole blocks of 32 columns, with a
// spreading of codes of its own for 4 uniform bits; the plain kernel for the rest.
#include "bitmap_dual_shift_linear.cuh"

#include "bitmap_activations.cuh"
#include "common/bitmap_call.cuh"
#include "common/bitmap_digits_linear.cuh"
#include "common/bitmap_grid.cuh"
#include "common/bitmap_plain.cuh"

namespace prism::cuda {
namespace {

struct PlainCodes : BitmapCodesGrid {
  static constexpr int kColumns = 4;

  template <class Body>
  __device__ void Decode(int64_t panel, int64_t quad, int64_t k, const Unit<4>& mask, int64_t position, const float* levels,
                         Body body) const {
    ForRows(panel, quad, k, mask, position, levels, body);
  }
};

bool TakesTensorCores(const BitmapDualShiftLinearArgs& a) {
  const auto aligned = [](const void* at, uintptr_t bytes) { return reinterpret_cast<uintptr_t>(at) % bytes == 0; };
  const bool whole_blocks = a.group_size >= a.k || a.group_size % kBlockColumns == 0;
  const bool vectors = aligned(a.bitmap, 8) && aligned(a.scale, 16) && aligned(a.zero, 2);
  return (a.quantized || a.dtype != DType::kFloat32) && whole_blocks && vectors;
}

MmaCall CallOf(const BitmapDualShiftLinearArgs& a) {
  const DType multiplied = a.dtype == DType::kFloat16 ? DType::kFloat16 : DType::kBFloat16;
  return {{a.x, a.dtype, a.m, a.k, a.column_scale}, a.quantized, multiplied, a.bias, a.y, a.n};
}

bool IsFourBit(const BitmapDualShiftLinearArgs& a) { return a.bits == 4 && a.codebook == Codebook::kUniform; }

bool TakesDigits(const BitmapDualShiftLinearArgs& a) {
  const auto aligned = [](const void* at, uintptr_t bytes) { return reinterpret_cast<uintptr_t>(at) % bytes == 0; };
  return IsFourBit(a) && !a.quantized && TakesBitmapDigits(a.m, a.k, a.group_size) && aligned(a.bitmap, 16) && aligned(a.scale, 4) && aligned(a.zero, 2);
}

}  // namespace

int64_t BitmapDualShiftLinearScratchBytes(const BitmapDualShiftLinearArgs& a) {
  if (TakesDigits(a)) return 0;
  if (!TakesTensorCores(a)) return a.quantized ? a.m * 4 : 0;
  return IsFourBit(a) ? MmaScratchBytes<FourBitCodes>(CallOf(a)) : MmaScratchBytes<AnyCodes>(CallOf(a));
}

cudaError_t BitmapDualShiftLinear(const BitmapDualShiftLinearArgs& a, cudaStream_t stream) {
  if (TakesDigits(a)) {
    const BitmapDigitsArgs digits{a.bitmap, a.codes, a.panel_offsets, a.scale, a.zero, a.column_scale, a.x, a.bias, a.y, a.dtype,
                                  a.size, a.n, a.k, static_cast<int>(a.m), static_cast<int>(a.groups)};
    return LaunchBitmapDigits(digits, a.group_size, stream);
  }
  if (!TakesTensorCores(a)) {
    const ActivationArgs x{a.x, a.dtype, a.m, a.k, a.column_scale};
    float* const token_scale = a.quantized ? static_cast<float*>(a.scratch) : nullptr;
    if (a.quantized) {
      if (const cudaError_t error = TokenScales(x, token_scale, stream); error != cudaSuccess) return error;
    }
    const PlainCodes source{{a.bitmap, a.codes, a.panel_offsets, a.scale, a.zero, a.size, a.group_size, a.groups, a.bits, a.codebook}};
    return LaunchBitmapPlain(source, {x, token_scale, a.bias, a.n, a.y}, stream);
  }
  // One group may be longer than the weight, or end within a block: then it ends with the last block.
  const int64_t group_size = a.groups == 1 ? NumBlocks32(a.k) * kBlockColumns : a.group_size;
  constexpr int64_t kChunkColumns = 4 * kChunkUnits;
  const int per_chunk = kChunkColumns % group_size == 0 ? static_cast<int>(kChunkColumns / group_size) : 0;
  const BitmapCodesWeight weight{a.bitmap, a.codes, a.panel_offsets, a.scale, a.zero, a.size, NumQuads(a.k), group_size, a.groups, per_chunk, a.bits, a.codebook};
  if (IsFourBit(a)) return CallMma<FourBitCodes>(CallOf(a), weight, a.scratch, stream);
  return CallMma<AnyCodes>(CallOf(a), weight, a.scratch, stream);
}

}  // namespace prism::cuda
