#include "sinkhorn.h"

#include <cstring>
#include <limits>
#include <type_traits>
#include <vector>

#include "isa.h"

namespace prism::cpu {
namespace generic {

namespace {

constexpr int kLanes = 4;
constexpr int kRows = 2;
typedef float Lanes __attribute__((vector_size(4 * kLanes)));
typedef int32_t IntLanes __attribute__((vector_size(4 * kLanes)));

inline Lanes LoadAll(const float* from) {
  Lanes lanes;
  std::memcpy(&lanes, from, sizeof lanes);
  return lanes;
}

inline Lanes LoadAll(const uint16_t* from) {
  return Lanes{BFloat16ToFloat(from[0]), BFloat16ToFloat(from[1]), BFloat16ToFloat(from[2]), BFloat16ToFloat(from[3])};
}

template <class T>
inline Lanes LoadKept(const T* from, const uint8_t* bitmap, int64_t j) {
  const Lanes lanes = LoadAll(from);
  const int32_t word = bitmap[j >> 3] >> (j & 7);
  return ((IntLanes{word, word, word, word} & IntLanes{1, 2, 4, 8}) != 0) ? lanes : Lanes{};
}

constexpr int kMaskBytes = 8;
inline void PackMask(const uint8_t* mask, uint8_t* bitmap) {
  uint64_t bytes;
  std::memcpy(&bytes, mask, sizeof bytes);
  *bitmap = static_cast<uint8_t>((bytes * 0x0102040810204080u) >> 56);  // the eight lowest bits, side by side
}

inline double Total(Lanes lanes) { return static_cast<double>((lanes[0] + lanes[2]) + (lanes[1] + lanes[3])); }

}  // namespace
#include "sinkhorn_kernels.inc"

}  // namespace generic

const SinkhornKernels* PickSinkhorn(DType dtype) {
  using Table = const SinkhornKernels*;
#if PRISM_X86
  if (dtype == DType::kBFloat16) {
    return Pick<Table>("sinkhorn",
                       {&generic::kSinkhornBFloat16, &avx2::kSinkhornBFloat16, &avx512::kSinkhornBFloat16, nullptr});
  }
  return Pick<Table>("sinkhorn",
                     {&generic::kSinkhornFloat32, &avx2::kSinkhornFloat32, &avx512::kSinkhornFloat32, nullptr});
#else
  return Pick<Table>("sinkhorn", {dtype == DType::kBFloat16 ? &generic::kSinkhornBFloat16 : &generic::kSinkhornFloat32});
#endif
}

}  // namespace prism::cpu
