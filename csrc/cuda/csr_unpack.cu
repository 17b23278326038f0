// A block per row: it clears a stretch of the row in shared memory, scatters the survivors that fall into it, and writes it
// once, 16 bytes at a time. A row of up to 16384 16-bit columns is one stretch; of a longer one the columns are read again
// for each. The bound is writing the dense weight.
#include "csr_unpack.cuh"

#include "common/launch.cuh"

namespace prism::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kResident = 8;  // blocks per multiprocessor that registers are spent for; left free, the compiler spills
constexpr int64_t kStretchBytes = 32 * 1024;
constexpr int64_t kMaxBlocks = int64_t{1} << 30;

template <class Value, class Column>
__global__ void __launch_bounds__(kThreads, kResident) CsrUnpackKernel(CsrRows w, int64_t stretch, bool aligned, Value* dense) {
  PRISM_DYNAMIC_SMEM(shared);
  auto* const out = reinterpret_cast<Value*>(shared);
  const auto* const values = static_cast<const Value*>(w.values);
  const auto* const columns = static_cast<const Column*>(w.columns);
  constexpr int64_t kPerVector = 16 / sizeof(Value);
  for (int64_t row = blockIdx.x; row < w.n; row += gridDim.x) {
    const int64_t begin = w.Offset(row), end = w.Offset(row + 1);
    for (int64_t first = 0; first < w.k; first += stretch) {
      const int64_t width = min(stretch, w.k - first);
      for (int64_t i = threadIdx.x; i < CeilDiv(width, kPerVector); i += kThreads) {
        reinterpret_cast<uint4*>(shared)[i] = make_uint4(0, 0, 0, 0);
      }
      __syncthreads();
      for (int64_t i = begin + threadIdx.x; i < end; i += kThreads) {
        const int64_t column = min(static_cast<int64_t>(static_cast<uint32_t>(columns[i])), w.k - 1) - first;
        if (column >= 0 && column < width) out[column] = values[i];
      }
      __syncthreads();
      Value* const to = dense + row * w.k + first;
      if (aligned) {
        for (int64_t i = threadIdx.x; i < width / kPerVector; i += kThreads) {
          reinterpret_cast<uint4*>(to)[i] = reinterpret_cast<const uint4*>(shared)[i];
        }
      } else {
        for (int64_t i = threadIdx.x; i < width; i += kThreads) to[i] = out[i];
      }
      __syncthreads();
    }
  }
}

template <class Value>
cudaError_t LaunchTyped(const CsrRows& w, Value* dense, cudaStream_t stream) {
  constexpr auto kPerVector = static_cast<int64_t>(16 / sizeof(Value));
  const int64_t stretch = min(CeilDiv(w.k, kPerVector) * kPerVector, kStretchBytes / static_cast<int64_t>(sizeof(Value)));
  const auto blocks = static_cast<unsigned>(min(w.n, kMaxBlocks));
  const size_t shared = static_cast<size_t>(stretch) * sizeof(Value);
  const bool aligned = w.k % kPerVector == 0 && reinterpret_cast<uintptr_t>(dense) % 16 == 0;
  if (w.wide_columns) return Launch(CsrUnpackKernel<Value, uint32_t>, blocks, kThreads, shared, stream, w, stretch, aligned, dense);
  return Launch(CsrUnpackKernel<Value, uint16_t>, blocks, kThreads, shared, stream, w, stretch, aligned, dense);
}

}  // namespace

cudaError_t CsrUnpack(const CsrRows& weight, void* dense, cudaStream_t stream) {
  if (weight.n == 0 || weight.k == 0) return cudaSuccess;
  if (weight.dtype == DType::kFloat32) return LaunchTyped(weight, static_cast<uint32_t*>(dense), stream);
  return LaunchTyped(weight, static_cast<uint16_t*>(dense), stream);
}

}  // namespace prism::cuda
