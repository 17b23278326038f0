// One token, float32, and weights with few survivors: rows are split among warps. Other calls make tiles (csr_linear_tiles.cu).
// A warp per row; each lane takes eight neighbouring survivors at a time, with two or four 16-byte loads, and gathers what
// they multiply. The lanes' sums are added in a fixed order.
//
// One token: x lies in shared memory as float32. Bound: the bytes of the survivors, 4 each with 16-bit values and columns,
// read once; the gathers meet banks at random, about 9 of 32 lanes per clock, which takes half as long.
// More tokens: x is arranged as [groups, k, 8 tokens] float32, so that a gather is one sector of 32 bytes from the caches
// for 8 tokens; the survivors are read again for each group of 8.
#include "csr_linear.cuh"

#include "common/launch.cuh"
#include "csr_linear_tiles.cuh"

namespace prism::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int kTokens = 8;   // of a group
constexpr int kVector = 8;   // survivors that a lane takes at once
constexpr unsigned kAll = 0xffffffffu;
constexpr int64_t kMostShared = 200 * 1024;
constexpr int64_t kMaxBlocks = 65535 * 32;

bool XInShared(int64_t m, int64_t k) { return m == 1 && k * 4 <= kMostShared; }

struct Survivors {
  float values[kVector];
  uint32_t columns[kVector];
};

template <class Word>
__device__ uint4 LoadFour(const Word* at) { return __ldg(reinterpret_cast<const uint4*>(at)); }

template <DType kDType>
__device__ float ValueOf(uint32_t bits) {
  if constexpr (kDType == DType::kFloat32) return BitsToFloat(bits);
  if constexpr (kDType == DType::kFloat16) return Float16ToFloat(static_cast<uint16_t>(bits));
  return BFloat16ToFloat(static_cast<uint16_t>(bits));
}

// Eight survivors from `at` on, a multiple of 8 with at + 8 <= num_values, of aligned streams.
template <DType kDType, bool kWideColumns>
__device__ void LoadVectors(const CsrRows& w, int64_t at, Survivors& survivors) {
  const auto halves = [](uint4 four, uint32_t (&out)[kVector]) {
    const uint32_t words[4] = {four.x, four.y, four.z, four.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) out[2 * i] = words[i] & 0xffffu, out[2 * i + 1] = words[i] >> 16;
  };
  const auto whole = [](uint4 low, uint4 high, uint32_t (&out)[kVector]) {
    const uint32_t words[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
#pragma unroll
    for (int i = 0; i < kVector; ++i) out[i] = words[i];
  };
  uint32_t bits[kVector];
  if constexpr (kDType == DType::kFloat32) {
    const auto* from = static_cast<const uint32_t*>(w.values) + at;
    whole(LoadFour(from), LoadFour(from + 4), bits);
  } else {
    halves(LoadFour(static_cast<const uint16_t*>(w.values) + at), bits);
  }
  if constexpr (kWideColumns) {
    const auto* from = static_cast<const uint32_t*>(w.columns) + at;
    whole(LoadFour(from), LoadFour(from + 4), survivors.columns);
  } else {
    halves(LoadFour(static_cast<const uint16_t*>(w.columns) + at), survivors.columns);
  }
#pragma unroll
  for (int i = 0; i < kVector; ++i) survivors.values[i] = ValueOf<kDType>(bits[i]);
}

// As above one by one, of [at, end).
template <DType kDType, bool kWideColumns>
__device__ void LoadSingly(const CsrRows& w, int64_t at, int64_t end, Survivors& survivors) {
#pragma unroll
  for (int i = 0; i < kVector; ++i) {
    const bool live = at + i < end;
    survivors.values[i] = live ? LoadFloat(w.values, kDType, at + i) : 0.0f;
    survivors.columns[i] = 0;
    if (live) {
      survivors.columns[i] = kWideColumns ? static_cast<const uint32_t*>(w.columns)[at + i] : static_cast<const uint16_t*>(w.columns)[at + i];
    }
  }
}

template <int kCount>
struct Sums {
  float of[kCount] = {};

  __device__ void Add(float value, const float* x) {
    if constexpr (kCount == 1) {
      of[0] = __fmaf_rn(value, *x, of[0]);
    } else {
      const auto* from = reinterpret_cast<const float4*>(x);
      const float4 low = from[0], high = from[1];
      const float tokens[kTokens] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
#pragma unroll
      for (int t = 0; t < kCount; ++t) of[t] = __fmaf_rn(value, tokens[t], of[t]);
    }
  }
};

// This lane's share of a row; x is [k, kCount].
template <DType kDType, bool kWideColumns, int kCount>
__device__ void SumRow(const CsrRows& w, bool aligned, int64_t row, const float* x, Sums<kCount>& sums) {
  const int64_t begin = w.Offset(row), end = w.Offset(row + 1), lane = threadIdx.x % 32;
  const auto last = static_cast<uint32_t>(w.k - 1);
  for (int64_t at = begin / kVector * kVector + lane * kVector; at < end; at += 32 * kVector) {
    Survivors survivors;
    if (aligned && at + kVector <= w.num_values) {
      LoadVectors<kDType, kWideColumns>(w, at, survivors);
    } else {
      LoadSingly<kDType, kWideColumns>(w, at, end, survivors);
    }
#pragma unroll
    for (int i = 0; i < kVector; ++i) {
      const float* from = x + static_cast<int64_t>(min(survivors.columns[i], last)) * kCount;
      if (at + i >= begin && at + i < end) sums.Add(survivors.values[i], from);
    }
  }
}

// x [m, k] as float32 [groups, k, count], 0 past m.
__global__ void CsrArrangeKernel(const void* x, DType dtype, int64_t m, int64_t k, int64_t count, int64_t size, float* arranged) {
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < size; i += stride) {
    const int64_t token = i / count / k * count + i % count, column = i / count % k;
    arranged[i] = token < m ? LoadFloat(x, dtype, token * k + column) : 0.0f;
  }
}

// Grid: x: rows, y: groups of tokens.
// Two blocks of kThreads fit, and no architecture spills; a bound of three blocks makes sm_100 spill around a call.
template <DType kDType, bool kWideColumns, int kCount, bool kShared>
__global__ void __maxnreg__(96) CsrLinearKernel(CsrRows w, CsrLinearArgs a, bool aligned) {
  PRISM_DYNAMIC_SMEM(shared);
  const float* x = a.workspace + blockIdx.y * w.k * kCount;
  if constexpr (kShared) {
    auto* const own = reinterpret_cast<float*>(shared);
    for (int64_t i = threadIdx.x; i < w.k; i += kThreads) own[i] = LoadFloat(a.x, a.dtype, i);
    __syncthreads();
    x = own;
  }
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kWarps, first = static_cast<int64_t>(blockIdx.y) * kCount;
  for (int64_t row = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / 32; row < w.n; row += stride) {
    Sums<kCount> sums;
    SumRow<kDType, kWideColumns, kCount>(w, aligned, row, x, sums);
#pragma unroll
    for (int t = 0; t < kCount; ++t) {
      for (int lanes = 16; lanes > 0; lanes /= 2) sums.of[t] += __shfl_xor_sync(kAll, sums.of[t], lanes);
    }
#pragma unroll
    for (int t = 0; t < kCount; ++t) {
      if (lane != t || first + t >= a.m) continue;
      const float sum = sums.of[t] + (a.bias != nullptr ? LoadFloat(a.bias, a.dtype, row) : 0.0f);
      StoreFloat(sum, a.y, a.dtype, (first + t) * w.n + row);
    }
  }
}

template <DType kDType, bool kWideColumns>
cudaError_t LaunchTyped(const CsrRows& w, const CsrLinearArgs& a, cudaStream_t stream) {
  const auto aligned16 = [](const void* at) { return reinterpret_cast<uintptr_t>(at) % 16 == 0; };
  const bool aligned = aligned16(w.values) && aligned16(w.columns);
  const int64_t needed = CeilDiv(w.n, kWarps);
  if (XInShared(a.m, w.k)) {  // a block keeps x for many rows
    const auto kernel = CsrLinearKernel<kDType, kWideColumns, 1, true>;
    const auto shared = static_cast<size_t>(w.k * 4);
    int resident = 0;
    const cudaError_t error = CooperativeBlocks(kernel, kThreads, shared, &resident);
    if (error != cudaSuccess) return error;
    const auto blocks = static_cast<unsigned>(min(needed, static_cast<int64_t>(max(resident, 1))));
    return Launch(kernel, blocks, kThreads, shared, stream, w, a, aligned);
  }
  const int64_t count = a.m == 1 ? 1 : kTokens, size = CeilDiv(a.m, count) * count * w.k;
  if (size > 0) {
    const auto blocks = static_cast<unsigned>(min(CeilDiv(size, kThreads), kMaxBlocks));
    const cudaError_t error = Launch(CsrArrangeKernel, blocks, kThreads, 0, stream, a.x, a.dtype, a.m, w.k, count, size, a.workspace);
    if (error != cudaSuccess) return error;
  }
  const dim3 grid(static_cast<unsigned>(min(needed, kMaxBlocks)), static_cast<unsigned>(CeilDiv(a.m, count)));
  if (a.m == 1) return Launch(CsrLinearKernel<kDType, kWideColumns, 1, false>, grid, kThreads, 0, stream, w, a, aligned);
  return Launch(CsrLinearKernel<kDType, kWideColumns, kTokens, false>, grid, kThreads, 0, stream, w, a, aligned);
}

template <DType kDType>
cudaError_t LaunchColumns(const CsrRows& w, const CsrLinearArgs& a, cudaStream_t stream) {
  return w.wide_columns ? LaunchTyped<kDType, true>(w, a, stream) : LaunchTyped<kDType, false>(w, a, stream);
}

}  // namespace

int64_t CsrLinearWorkspace(const CsrRows& weight, const void* x, int64_t m, DType dtype) {
  const int64_t k = weight.k;
  if (CsrTilesServe(weight, m, dtype)) return CsrTilesWorkspace(weight, x, m);
  return XInShared(m, k) ? 0 : m == 1 ? k : CeilDiv(m, kTokens) * kTokens * k;
}

cudaError_t CsrLinear(const CsrRows& weight, const CsrLinearArgs& args, cudaStream_t stream) {
  if (args.m == 0 || weight.n == 0) return cudaSuccess;
  if (CsrTilesServe(weight, args.m, args.dtype)) return CsrLinearTiles(weight, args, stream);
  constexpr int64_t kMostGroups = 65535;  // of a grid's y
  for (int64_t first = 0; first < args.m; first += kMostGroups * kTokens) {
    CsrLinearArgs part = args;
    const int64_t bytes = DTypeBytes(args.dtype);
    part.x = static_cast<const char*>(args.x) + first * weight.k * bytes;
    part.y = static_cast<char*>(args.y) + first * weight.n * bytes;
    part.m = min(args.m - first, kMostGroups * kTokens);
    cudaError_t error = cudaSuccess;
    switch (weight.dtype) {
      case DType::kFloat32: error = LaunchColumns<DType::kFloat32>(weight, part, stream); break;
      case DType::kFloat16: error = LaunchColumns<DType::kFloat16>(weight, part, stream); break;
      default: error = LaunchColumns<DType::kBFloat16>(weight, part, stream); break;
    }
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

}  // namespace prism::cuda
