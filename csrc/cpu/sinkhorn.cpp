#include "sinkhorn.h"

#include <cstring>
#include <limits>
#include <vector>

#include "isa.h"

namespace prism::cpu {
namespace generic {

namespace {

constexpr int kLanes = 4;
constexpr int kRows = 2;
typedef float Lanes __attribute__((vector_size(4 * kLanes)));
typedef int32_t IntLanes __attribute__((vector_size(4 * kLanes)));

inline Lanes LoadKept(const float* from, const uint8_t* bitmap, int64_t j) {
  Lanes lanes;
  std::memcpy(&lanes, from, sizeof lanes);
  const int32_t word = bitmap[j >> 3] >> (j & 7);
  return ((IntLanes{word, word, word, word} & IntLanes{1, 2, 4, 8}) != 0) ? lanes : Lanes{};
}

inline double Total(Lanes lanes) { return static_cast<double>((lanes[0] + lanes[2]) + (lanes[1] + lanes[3])); }

}  // namespace
#include "sinkhorn_kernels.inc"

}  // namespace generic

const SinkhornKernels* PickSinkhorn() {
  using Table = const SinkhornKernels*;
#if PRISM_X86
  return Pick<Table>("sinkhorn",
                     {&generic::kSinkhornKernels, &avx2::kSinkhornKernels, &avx512::kSinkhornKernels, nullptr});
#else
  return Pick<Table>("sinkhorn", {&generic::kSinkhornKernels});
#endif
}

}  // namespace prism::cpu
