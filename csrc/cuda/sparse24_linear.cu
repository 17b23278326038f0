#include "sparse24_linear.cuh"

#include "common/sparse24_linear_kernels.cuh"

namespace prism::cuda {

int64_t Sparse24LinearScratch(int64_t m, int64_t n, int64_t k) {
  return PartialFloats(SparseSplits(m, n, k), m, n);
}

cudaError_t Sparse24Linear(const void* x, const void* values, const uint32_t* columns, const void* bias, DType dtype,
                           int64_t m, int64_t n, int64_t k, float* scratch, void* y, cudaStream_t stream) {
  if (m == 0 || n == 0) return cudaSuccess;
  const SparseActivations in{static_cast<const uint16_t*>(x), nullptr, m, k, k % 8 == 0 && Aligned16(x)};
  const LinearOutput out{y, bias, nullptr, scratch, dtype, m, n};
  const auto run = [&](auto arithmetic) {
    const SparseValues<decltype(arithmetic)> source{static_cast<const uint4*>(values), columns, NumSparseTiles(k)};
    return RunSparseLinear(source, in, out, stream);
  };
  return dtype == DType::kBFloat16 ? run(BFloat16Arithmetic{}) : run(Float16Arithmetic{});
}

}  // namespace prism::cuda
