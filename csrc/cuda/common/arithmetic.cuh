// What the linears on tensor cores share about operands: the arithmetic of a pair of 16-bit floats, and reads of activations.
#pragma once
#include "../../common/dtype.h"
#include "ptx.cuh"

namespace prism::cuda {

// What is multiplied: x, already rounded to 16 bits, and the pairs that a format makes.
struct BFloat16Arithmetic {
  static constexpr DType kDType = DType::kBFloat16;
  static constexpr uint32_t kOnes = 0x3f803f80u;
  static constexpr uint32_t kCodeBase = 0x43004300u;  // | codes below 128 in the halves is the pair 128 + code
  static __device__ void Multiply(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) { MmaBf16(d, a, b); }
  template <int kSelector>
  static __device__ void MultiplySparse(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[4], uint32_t columns) {
    MmaSparseBf16<kSelector>(d, a, b, columns);
  }
  static __device__ uint32_t Fma(uint32_t a, uint32_t b, uint32_t c) { return FmaBf16(a, b, c); }
  static __device__ uint32_t Pack(float low, float high) { return PackBf16(low, high); }
  // x * column_scale of a pair, rounded once; adding -0 keeps every zero as it is.
  static __device__ uint32_t Scale(uint32_t x, uint32_t column_scale) { return FmaBf16(x, column_scale, 0x80008000u); }
};

struct Float16Arithmetic {
  static constexpr DType kDType = DType::kFloat16;
  static constexpr uint32_t kOnes = 0x3c003c00u;
  static constexpr uint32_t kCodeBase = 0x64006400u;  // | codes below 1024 is the pair 1024 + code
  static __device__ void Multiply(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) { MmaFp16(d, a, b); }
  template <int kSelector>
  static __device__ void MultiplySparse(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[4], uint32_t columns) {
    MmaSparseFp16<kSelector>(d, a, b, columns);
  }
  static __device__ uint32_t Fma(uint32_t a, uint32_t b, uint32_t c) { return FmaFp16(a, b, c); }
  static __device__ uint32_t Pack(float low, float high) { return PackFp16(low, high); }
  // Of a bfloat16 column scale, which may lie outside the range of float16 where the product, exact in float32, does not.
  static __device__ uint32_t Scale(uint32_t x, uint32_t column_scale) {
    const float2 values = UnpackFp16(x);
    return PackFp16(values.x * __uint_as_float(column_scale << 16), values.y * __uint_as_float(column_scale & 0xffff0000u));
  }
};

// -(base + zero) in both halves, so that (code | base) plus it is code - zero, exact.
template <class Arithmetic>
__device__ uint32_t MinusZeros(uint32_t zero) {
  return (Arithmetic::kCodeBase | 0x80008000u) | zero * 0x00010001u;
}

// Eight 16-bit values, aligned.
__device__ inline uint4 LoadEight(const uint16_t* at) { return __ldg(reinterpret_cast<const uint4*>(at)); }

// Eight 16-bit values of a row of length k from `column` on, a multiple of 8, 0 past its end; `aligned`: k is a multiple of 8
// and the row begins at a multiple of 16 bytes. For kernels that do not ask for padded rows.
__device__ inline uint4 LoadEightOfRow(const uint16_t* row, int64_t column, int64_t k, bool aligned) {
  if (column >= k) return make_uint4(0, 0, 0, 0);
  if (aligned) return *reinterpret_cast<const uint4*>(row + column);
  uint32_t pairs[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int64_t first = column + 2 * i;
    pairs[i] = first < k ? row[first] : 0u;
    if (first + 1 < k) pairs[i] |= static_cast<uint32_t>(row[first + 1]) << 16;
  }
  return make_uint4(pairs[0], pairs[1], pairs[2], pairs[3]);
}

template <class Arithmetic>
__device__ uint4 ScaleEight(uint4 x, uint4 scale) {
  return make_uint4(Arithmetic::Scale(x.x, scale.x), Arithmetic::Scale(x.y, scale.y), Arithmetic::Scale(x.z, scale.z),
                    Arithmetic::Scale(x.w, scale.w));
}

inline bool Aligned16(const void* at) { return reinterpret_cast<uintptr_t>(at) % 16 == 0; }

}  // namespace prism::cuda
