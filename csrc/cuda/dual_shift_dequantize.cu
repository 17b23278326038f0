// A warp decodes a chunk of 16 rows x 64 columns (common/plane_chunk.cuh) and stores 16 bytes per lane. Bound by the bytes
// of the result: 16 bits written for 4 read.
#include "dual_shift_dequantize.cuh"

#include "common/plane_chunk.cuh"
#include "common/store_eight.cuh"

namespace prism::cuda {
namespace {

struct Decoder {
  PlaneChunks chunks;
  const uint16_t* scale;
  const uint8_t* zero;  // null where there are levels
  const uint16_t* column_scale;
  uint32_t group_size, groups;
  float levels[16];
  void* weight;
  bool aligned;  // RowsAligned16
};

// Of one row and group: 2^23 + zero point, because codes become floats as the mantissa of 2^23 + code (conversions run at an
// eighth of the rate), and the scale.
struct RowGrid {
  float zero, scale;
};

__device__ RowGrid LoadGrid(const Decoder& d, int64_t panel, uint32_t group, int row) {
  const int64_t at = panel * d.groups + group;
  const float scale = BFloat16ToFloat(d.scale[at * kPanelRows + row]);
  if (d.zero == nullptr) return {0.0f, scale};
  const uint8_t* zeros = d.zero + at * ZeroBytes(d.chunks.bits);
  const uint32_t zero = d.chunks.bits > 4 ? zeros[row] : row < 8 ? zeros[row] & 15u : zeros[row - 8] >> 4;
  return {__uint_as_float(0x4b000000u | zero), scale};
}

// Column c of eight: (q - z) * s * c or level[q] * s * c.
template <bool kUniform>
__device__ float Decode(const uint32_t (&quads)[2], int c, const RowGrid& grid, float factor, const float* levels) {
  const unsigned byte = c % 4 == 1 ? 2 : c % 4 == 2 ? 1 : c % 4;  // kQuadOrder is its own inverse
  float step;
  if constexpr (kUniform) {
    step = __uint_as_float(__byte_perm(quads[c / 4], 0x4b000000u, 0x7440u | byte)) - grid.zero;
  } else {
    step = levels[quads[c / 4] >> 8 * byte & 255u];
  }
  return step * grid.scale * factor;
}

template <DType kDType, bool kUniform>
__global__ void __launch_bounds__(kChunkThreads) DualShiftDequantizeKernel(Decoder d) {
  PRISM_DYNAMIC_SMEM(shared);
  auto* const levels = reinterpret_cast<float*>(shared);
  if constexpr (!kUniform) {
#pragma unroll
    for (int i = 0; i < 16; ++i) {
      if (threadIdx.x == static_cast<unsigned>(i)) levels[i] = d.levels[i];
    }
    __syncthreads();
  }
  const int64_t index = static_cast<int64_t>(blockIdx.x) * (kChunkThreads / 32) + threadIdx.x / 32;
  if (index >= d.chunks.Count()) return;
  const PlaneChunk chunk(d.chunks, index);
  if (chunk.column >= d.chunks.k) return;
  const uint32_t first = static_cast<uint32_t>(chunk.column), last = static_cast<uint32_t>(min(chunk.column + 8, d.chunks.k) - 1);
  const uint32_t group = first / d.group_size;
  const bool one_group = last / d.group_size == group;
  float factors[8];
#pragma unroll
  for (int c = 0; c < 8; ++c) factors[c] = first + c <= last ? BFloat16ToFloat(d.column_scale[first + c]) : 0.0f;
#pragma unroll
  for (int r = 0; r < kChunkRows; ++r) {
    if (chunk.row + r >= d.chunks.n) break;
    RowGrid grid = LoadGrid(d, chunk.panel, group, chunk.row_in_panel + r);
    float values[8];
    if (one_group) {
#pragma unroll
      for (int c = 0; c < 8; ++c) values[c] = Decode<kUniform>(chunk.quads[r], c, grid, factors[c], levels);
    } else {
#pragma unroll
      for (int c = 0; c < 8; ++c) {
        grid = LoadGrid(d, chunk.panel, min(first + c, last) / d.group_size, chunk.row_in_panel + r);
        values[c] = Decode<kUniform>(chunk.quads[r], c, grid, factors[c], levels);
      }
    }
    StoreEight<kDType>(d.weight, chunk.row + r, chunk.column, d.chunks.k, d.aligned, values);
  }
}

template <DType kDType>
cudaError_t Run(const DualShiftDequantizeArgs& a, cudaStream_t stream) {
  Decoder d{};
  d.chunks = {a.codes, a.n, a.k, a.bits};
  d.scale = a.scale;
  d.zero = a.codebook == Codebook::kUniform ? a.zero : nullptr;
  d.column_scale = a.column_scale;
  d.group_size = static_cast<uint32_t>(a.group_size < a.k ? a.group_size : a.k);
  d.groups = static_cast<uint32_t>(CeilDiv(a.k, a.group_size));
  for (int i = 0; i < CodebookSize(a.codebook); ++i) d.levels[i] = CodebookLevels(a.codebook)[i];
  d.weight = a.weight;
  d.aligned = RowsAligned16(a.weight, a.k, a.dtype);
  const int64_t blocks = CeilDiv(d.chunks.Count(), int64_t{kChunkThreads / 32});
  const auto kernel = d.zero != nullptr ? DualShiftDequantizeKernel<kDType, true> : DualShiftDequantizeKernel<kDType, false>;
  return Launch(kernel, static_cast<unsigned>(blocks), kChunkThreads, 16 * sizeof(float), stream, d);
}

}  // namespace

cudaError_t DualShiftDequantize(const DualShiftDequantizeArgs& a, cudaStream_t stream) {
  if (a.n == 0 || a.k == 0) return cudaSuccess;
  if (a.k > INT32_MAX) return cudaErrorInvalidValue;
  switch (a.dtype) {
    case DType::kFloat32: return Run<DType::kFloat32>(a, stream);
    case DType::kFloat16: return Run<DType::kFloat16>(a, stream);
    default: return Run<DType::kBFloat16>(a, stream);
  }
}

}  // namespace prism::cuda
