// A warp decodes a chunk of 16 rows x 64 columns (common/plane_chunk.cuh) and stores 16 bytes per lane. Bound by the bytes
// of the result: 16 bits written for 4 read.
#include "dual_shift_dequantize.cuh"

#include "common/plane_chunk.cuh"

namespace prism::cuda {
namespace {

struct Decoder {
  PlaneChunks chunks;
  const uint16_t* scale;
  const uint8_t* zero;  // null unless uniform
  const uint16_t* column_scale;
  uint32_t group_size, groups;
  float levels[16];
  void* weight;
  bool aligned;  // rows of the weight begin at multiples of 16 bytes
};

// Scale and zero point of a row, group by group.
class RowGrid {
 public:
  __device__ RowGrid(const Decoder& d, int64_t panel, int row) : d_(d), first_(panel * d.groups), row_(row) {}

  __device__ void MoveTo(uint32_t group) {
    const int64_t at = first_ + group;
    scale = BFloat16ToFloat(d_.scale[at * kPanelRows + row_]);
    if (d_.zero == nullptr) return;
    const uint8_t* zeros = d_.zero + at * ZeroBytes(d_.chunks.bits);
    zero = static_cast<float>(d_.chunks.bits > 4 ? zeros[row_] : row_ < 8 ? zeros[row_] & 15 : zeros[row_ - 8] >> 4);
  }

  float scale = 0.0f, zero = 0.0f;

 private:
  const Decoder& d_;
  const int64_t first_;
  const int row_;
};

template <DType kDType>
__device__ void StoreEight(const Decoder& d, int64_t row, int64_t column, const float (&values)[8]) {
  const int64_t at = row * d.chunks.k + column;
  if (!d.aligned) {
#pragma unroll
    for (int c = 0; c < 8; ++c) {
      if (column + c < d.chunks.k) StoreFloat(values[c], d.weight, kDType, at + c);
    }
  } else if constexpr (kDType == DType::kFloat32) {
    auto* const to = reinterpret_cast<float4*>(static_cast<float*>(d.weight) + at);
    to[0] = make_float4(values[0], values[1], values[2], values[3]);
    if (column + 4 < d.chunks.k) to[1] = make_float4(values[4], values[5], values[6], values[7]);
  } else {
    const auto pair = [&](int c) {
      return kDType == DType::kBFloat16 ? PackBf16(values[c], values[c + 1]) : PackFp16(values[c], values[c + 1]);
    };
    *reinterpret_cast<uint4*>(static_cast<uint16_t*>(d.weight) + at) = make_uint4(pair(0), pair(2), pair(4), pair(6));
  }
}

template <DType kDType>
__global__ void __launch_bounds__(kChunkThreads) DualShiftDequantizeKernel(Decoder d) {
  PRISM_DYNAMIC_SMEM(shared);
  auto* const levels = reinterpret_cast<float*>(shared);
#pragma unroll
  for (int i = 0; i < 16; ++i) {
    if (threadIdx.x == static_cast<unsigned>(i)) levels[i] = d.levels[i];
  }
  __syncthreads();
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
    RowGrid grid(d, chunk.panel, chunk.row_in_panel + r);
    grid.MoveTo(group);
    float values[8];
#pragma unroll
    for (int c = 0; c < 8; ++c) {
      if (!one_group) grid.MoveTo(min(first + c, last) / d.group_size);
      const int byte = c % 4 == 1 ? 2 : c % 4 == 2 ? 1 : c % 4;  // kQuadOrder is its own inverse
      const uint32_t code = chunk.quads[r][c / 4] >> 8 * byte & 255u;
      const float step = d.zero != nullptr ? static_cast<float>(static_cast<int>(code)) - grid.zero : levels[code];
      values[c] = step * grid.scale * factors[c];
    }
    StoreEight<kDType>(d, chunk.row + r, chunk.column, values);
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
  d.aligned = a.k * DTypeBytes(a.dtype) % 16 == 0 && reinterpret_cast<uintptr_t>(a.weight) % 16 == 0;
  const int64_t blocks = CeilDiv(d.chunks.Count(), int64_t{kChunkThreads / 32});
  return Launch(DualShiftDequantizeKernel<kDType>, static_cast<unsigned>(blocks), kChunkThreads, 16 * sizeof(float), stream, d);
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
