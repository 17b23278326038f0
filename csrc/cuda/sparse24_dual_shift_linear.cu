#include "sparse24_dual_shift_linear.cuh"

#include "common/sparse24_linear_kernels.cuh"

namespace prism::cuda {
namespace {

// log2 of a power of two, -1 of another number.
int ExactLog2(int value) {
  int shift = 0;
  while (1 << shift < value) ++shift;
  return 1 << shift == value ? shift : -1;
}

template <class Arithmetic, int kGroups>
cudaError_t Run(const Sparse24DualShift& weight, const SparseActivations& in, const LinearOutput& out, cudaStream_t stream) {
  // A group longer than the rows is one group; the number of units stays an int.
  const int64_t columns = kGroups == 1 ? kSparseTileColumns : kSparseStepColumns, longest = CeilDiv(in.k, columns);
  const int units = static_cast<int>(max(min(weight.group_size / columns, longest), int64_t{1}));
  const SparseCodes<Arithmetic, kGroups> source{reinterpret_cast<const uint2*>(weight.codes),
                                                weight.columns,
                                                weight.scale,
                                                weight.zero,
                                                NumSparseTiles(in.k),
                                                static_cast<int>(CeilDiv(in.k, weight.group_size)),
                                                units,
                                                ExactLog2(units)};
  return RunSparseLinear(source, in, out, stream);
}

}  // namespace

int64_t Sparse24DualShiftLinearScratch(int64_t m, int64_t n, int64_t k) {
  return PartialFloats(SparseSplits(m, n, k), m, n);
}

cudaError_t Sparse24DualShiftLinear(const void* x, const Sparse24DualShift& weight, const void* bias, DType dtype, int64_t m,
                                    int64_t n, int64_t k, float* scratch, void* y, cudaStream_t stream) {
  if (m == 0 || n == 0) return cudaSuccess;
  const bool vectors = k % 8 == 0 && Aligned16(x) && Aligned16(weight.column_scale);
  const SparseActivations in{static_cast<const uint16_t*>(x), weight.column_scale, m, k, vectors};
  const LinearOutput out{y, bias, nullptr, scratch, dtype, m, n};
  const bool whole_tiles = weight.group_size % kSparseTileColumns == 0;
  if (dtype == DType::kBFloat16) {
    return whole_tiles ? Run<BFloat16Arithmetic, 1>(weight, in, out, stream) : Run<BFloat16Arithmetic, 2>(weight, in, out, stream);
  }
  return whole_tiles ? Run<Float16Arithmetic, 1>(weight, in, out, stream) : Run<Float16Arithmetic, 2>(weight, in, out, stream);
}

}  // namespace prism::cuda
