// Two launches of one kernel, out[t, row] = sum over j of w[row, j] * x[t, j] for up to 8 tokens at a time: warps share a row,
// each lane takes 8 neighbouring weights with 16-byte loads, and one load of x serves the rows that a warp holds. The order
// of a sum depends on k alone: lanes in a tree, then warps in theirs.
//
// For few tokens. The bound is the bytes of both factors, 2 * rank * (n + k) once: 19 MB, 4.4 us at 4.3 TB/s, for rank 512 of
// 14336x4096, where the two launches cost about as much; 8 tokens add about 8 + 64 instructions of a lane per 8 weights, 4 us
// of issue slots beside it. Not measured. More tokens belong to the library: from the crossover on LowRankLinear calls two
// dense GEMMs (cuBLAS), which round what lies between to the dtype of x. Below it they would read the same bytes in as many
// launches and more, split k with a reduction of its own, and keep nothing between in float32, hence this kernel.
#include "low_rank_linear.cuh"

#include "common/launch.cuh"

namespace prism::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int kVector = 8;
constexpr unsigned kAll = 0xffffffffu;
constexpr int kMostTokens = 8;
constexpr int64_t kMostGroups = 65535;  // of a grid's y

struct Product {
  const void* w;     // [rows, k]
  const void* x;     // [m, k]
  const void* bias;  // [rows] of out_dtype, or null
  void* out;         // [m, rows] of out_dtype
  int64_t m, rows, k;
  DType w_dtype, x_dtype, out_dtype;
};

// Eight values as they lie in memory, so that many loads are under way before the first is converted.
template <DType kDType>
struct Raw {
  uint4 words[kDType == DType::kFloat32 ? 2 : 1];

  __device__ void Load(const void* data, int64_t index) {
    const auto* at = reinterpret_cast<const uint4*>(static_cast<const char*>(data) + index * DTypeBytes(kDType));
    words[0] = __ldg(at);
    if constexpr (kDType == DType::kFloat32) words[1] = __ldg(at + 1);
  }

  __device__ void Unpack(float (&values)[kVector]) const {
    if constexpr (kDType == DType::kFloat32) {
      const uint32_t bits[kVector] = {words[0].x, words[0].y, words[0].z, words[0].w, words[1].x, words[1].y, words[1].z, words[1].w};
#pragma unroll
      for (int i = 0; i < kVector; ++i) values[i] = BitsToFloat(bits[i]);
    } else {
      const uint32_t pairs[4] = {words[0].x, words[0].y, words[0].z, words[0].w};
#pragma unroll
      for (int i = 0; i < kVector; ++i) {
        const auto half = static_cast<uint16_t>(pairs[i / 2] >> 16 * (i % 2));
        values[i] = kDType == DType::kFloat16 ? Float16ToFloat(half) : BFloat16ToFloat(half);
      }
    }
  }
};

template <int kRows, int kTokens>
using Sums = float[kRows][kTokens];

// This lane's share of columns [0, end), end a multiple of 8 and every row aligned; `lane` of `lanes` that share the rows.
template <DType kW, DType kX, int kRows, int kTokens>
__device__ void SumVectors(const Product& p, int64_t row, int64_t token, int64_t end, int lane, int lanes, Sums<kRows, kTokens>& sums) {
#pragma unroll (kTokens == 1 ? 4 : 1)
  for (int64_t j = int64_t{lane} * kVector; j < end; j += int64_t{lanes} * kVector) {
    Raw<kW> w[kRows];
    Raw<kX> x[kTokens];
#pragma unroll
    for (int r = 0; r < kRows; ++r) w[r].Load(p.w, min(row + r, p.rows - 1) * p.k + j);
#pragma unroll
    for (int t = 0; t < kTokens; ++t) x[t].Load(p.x, min(token + t, p.m - 1) * p.k + j);
    float weights[kRows][kVector];
#pragma unroll
    for (int r = 0; r < kRows; ++r) w[r].Unpack(weights[r]);
#pragma unroll
    for (int t = 0; t < kTokens; ++t) {
      float inputs[kVector];
      x[t].Unpack(inputs);
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
#pragma unroll
        for (int i = 0; i < kVector; ++i) sums[r][t] = __fmaf_rn(weights[r][i], inputs[i], sums[r][t]);
      }
    }
  }
}

// The same one by one of columns [begin, k).
template <int kRows, int kTokens>
__device__ void SumSingly(const Product& p, int64_t row, int64_t token, int64_t begin, int lane, int lanes, Sums<kRows, kTokens>& sums) {
  for (int64_t j = begin + lane; j < p.k; j += lanes) {
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const float weight = LoadFloat(p.w, p.w_dtype, min(row + r, p.rows - 1) * p.k + j);
#pragma unroll
      for (int t = 0; t < kTokens; ++t) {
        sums[r][t] = __fmaf_rn(weight, LoadFloat(p.x, p.x_dtype, min(token + t, p.m - 1) * p.k + j), sums[r][t]);
      }
    }
  }
}

// Grid: x: rows, y: groups of tokens. `split` warps share kRows rows. The bound: blocks per multiprocessor that
// registers are spent for: left free, the compiler spills.
template <DType kW, DType kX, int kRows, int kTokens>
__global__ void __launch_bounds__(kThreads, kTokens == 1 ? 3 : kTokens == 4 ? 2 : 1) LowRankProductKernel(Product p, int split, bool aligned) {
  PRISM_DYNAMIC_SMEM(shared);
  auto* const partial = reinterpret_cast<float*>(shared);  // [kWarps, kRows, kTokens]
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int group = warp / split, share = warp % split, lanes = 32 * split;
  const int64_t row = (static_cast<int64_t>(blockIdx.x) * (kWarps / split) + group) * kRows;
  const int64_t token = static_cast<int64_t>(blockIdx.y) * kTokens;
  const int64_t vectors = aligned ? p.k : 0;
  Sums<kRows, kTokens> sums = {};
  if (row < p.rows) {
    SumVectors<kW, kX, kRows, kTokens>(p, row, token, vectors, 32 * share + lane, lanes, sums);
    SumSingly<kRows, kTokens>(p, row, token, vectors, 32 * share + lane, lanes, sums);
  }
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
#pragma unroll
    for (int t = 0; t < kTokens; ++t) {
      for (int distance = 16; distance > 0; distance /= 2) sums[r][t] += __shfl_xor_sync(kAll, sums[r][t], distance);
      if (lane == 0) partial[(warp * kRows + r) * kTokens + t] = sums[r][t];
    }
  }
  __syncthreads();
  // A thread for each sum of the block.
  const int t = static_cast<int>(threadIdx.x) % kTokens, r = static_cast<int>(threadIdx.x) / kTokens % kRows;
  const int owner = static_cast<int>(threadIdx.x) / (kTokens * kRows);
  const int64_t out_row = (static_cast<int64_t>(blockIdx.x) * (kWarps / split) + owner) * kRows + r;
  if (owner >= kWarps / split || out_row >= p.rows || token + t >= p.m) return;
  float sum = 0.0f;
  for (int part = 0; part < split; ++part) sum += partial[((owner * split + part) * kRows + r) * kTokens + t];
  if (p.bias != nullptr) sum += LoadFloat(p.bias, p.out_dtype, out_row);
  StoreFloat(sum, p.out, p.out_dtype, (token + t) * p.rows + out_row);
}

template <DType kW, DType kX, int kRows, int kTokens>
cudaError_t LaunchTokens(const Product& p, cudaStream_t stream) {
  const auto aligned16 = [](const void* at) { return reinterpret_cast<uintptr_t>(at) % 16 == 0; };
  const bool aligned = p.k % kVector == 0 && aligned16(p.w) && aligned16(p.x);
  int split = 1;  // of k alone, so that sums do not depend on the number of tokens; a lane then has two vectors and more
  while (split < kWarps && p.k >= int64_t{2} * split * 2 * 32 * kVector) split *= 2;
  const dim3 grid(static_cast<unsigned>(CeilDiv(p.rows, int64_t{kWarps / split * kRows})),
                  static_cast<unsigned>(CeilDiv(p.m, int64_t{kTokens})));
  const size_t shared = sizeof(float) * kWarps * kRows * kTokens;
  return Launch(LowRankProductKernel<kW, kX, kRows, kTokens>, grid, kThreads, shared, stream, p, split, aligned);
}

template <DType kW, DType kX>
cudaError_t LaunchTyped(const Product& p, cudaStream_t stream) {
  // Two rows: half the loads of x, and two loads of weights under way. Four would spill.
  if (p.m == 1) return LaunchTokens<kW, kX, 2, 1>(p, stream);
  if (p.m <= 4) return LaunchTokens<kW, kX, 2, 4>(p, stream);
  return LaunchTokens<kW, kX, 2, kMostTokens>(p, stream);
}

template <DType kW>
cudaError_t LaunchWeight(const Product& p, cudaStream_t stream) {
  switch (p.x_dtype) {
    case DType::kFloat32: return LaunchTyped<kW, DType::kFloat32>(p, stream);
    case DType::kFloat16: return LaunchTyped<kW, DType::kFloat16>(p, stream);
    default: return LaunchTyped<kW, DType::kBFloat16>(p, stream);
  }
}

cudaError_t LaunchProduct(Product p, cudaStream_t stream) {
  const int64_t m = p.m, most = kMostGroups * kMostTokens;
  for (int64_t first = 0; first < m && p.rows > 0; first += most) {
    Product part = p;
    part.m = min(m - first, most);
    part.x = static_cast<const char*>(p.x) + first * p.k * DTypeBytes(p.x_dtype);
    part.out = static_cast<char*>(p.out) + first * p.rows * DTypeBytes(p.out_dtype);
    cudaError_t error = cudaSuccess;
    switch (p.w_dtype) {
      case DType::kFloat32: error = LaunchWeight<DType::kFloat32>(part, stream); break;
      case DType::kFloat16: error = LaunchWeight<DType::kFloat16>(part, stream); break;
      default: error = LaunchWeight<DType::kBFloat16>(part, stream); break;
    }
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

}  // namespace

cudaError_t LowRankLinear(const LowRankLinearArgs& g, cudaStream_t stream) {
  const Product first = {g.a, g.x, nullptr, g.hidden, g.m, g.rank, g.k, g.a_dtype, g.dtype, DType::kFloat32};
  if (const cudaError_t error = LaunchProduct(first, stream); error != cudaSuccess) return error;
  const Product second = {g.b, g.hidden, g.bias, g.y, g.m, g.n, g.rank, g.b_dtype, DType::kFloat32, g.dtype};
  return LaunchProduct(second, stream);
}

}  // namespace prism::cuda
