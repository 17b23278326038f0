// Eight neighbours of a row of a decoded weight, stored as vectors of 16 bytes where rows allow it.
#pragma once
#include "../../common/dtype.h"
#include "ptx.cuh"

namespace prism::cuda {

// Whether rows of k elements begin at multiples of 16 bytes.
inline bool RowsAligned16(const void* weight, int64_t k, DType dtype) {
  return k * DTypeBytes(dtype) % 16 == 0 && reinterpret_cast<uintptr_t>(weight) % 16 == 0;
}

// values to row `row` of weight [n, k] of kDType from `column` on, each rounded once; what lies past k is dropped. `column` is a
// multiple of 8 below k; `aligned` is RowsAligned16.
template <DType kDType>
__device__ void StoreEight(void* weight, int64_t row, int64_t column, int64_t k, bool aligned, const float (&values)[8]) {
  const int64_t at = row * k + column;
  if (!aligned) {
#pragma unroll
    for (int c = 0; c < 8; ++c) {
      if (column + c < k) StoreFloat(values[c], weight, kDType, at + c);
    }
  } else if constexpr (kDType == DType::kFloat32) {
    const auto four = [&](int c) {
      return make_uint4(FloatBits(values[c]), FloatBits(values[c + 1]), FloatBits(values[c + 2]), FloatBits(values[c + 3]));
    };
    float* const to = static_cast<float*>(weight) + at;
    Store16(to, four(0));
    if (column + 4 < k) Store16(to + 4, four(4));
  } else {
    const auto pair = [&](int c) {
      return kDType == DType::kBFloat16 ? PackBf16(values[c], values[c + 1]) : PackFp16(values[c], values[c + 1]);
    };
    Store16(static_cast<uint16_t*>(weight) + at, make_uint4(pair(0), pair(2), pair(4), pair(6)));
  }
}

}  // namespace prism::cuda
