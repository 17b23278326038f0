// The kernel of bitmap_digits.cuh, which calls it takes, and its launch.
#pragma once
#include <type_traits>

#include "bitmap_digits_walk.cuh"

namespace prism::cuda {

template <int kGroup, int kTokens>
__global__ void __launch_bounds__(kDigitThreads, 1) BitmapDigitsKernel(BitmapDigitsArgs a) {
  PRISM_DYNAMIC_SMEM(shared);
  const int64_t panels = NumPanels(a.n), first = panels * blockIdx.x / gridDim.x, last = panels * (blockIdx.x + 1) / gridDim.x;
  const int count = static_cast<int>(last - first), warp = static_cast<int>(threadIdx.x) / 32;
  DigitsWarp<kGroup, kTokens> work(a, first, last, shared);
  FillExpansions<DigitsLayout<kGroup, kTokens>::kCopies, kDigitThreads>(shared);
  work.Prepare();
  __syncthreads();
  work.Open();
  for (int panel = 0; panel < count; ++panel) {
    if (panel > 0) {
      __syncthreads();
      work.StartPanel(panel);
      if ((panel - 1) % kDigitWarps == warp) work.StorePanel(panel - 1);
    }
    work.MultiplyPanel(panel);
  }
  CopyAsyncWait<0>();
  __syncthreads();
  if ((count - 1) % kDigitWarps == warp) work.StorePanel(count - 1);
}

// body(layout, kernel) of the instantiation for m tokens.
template <class Body>
auto WithDigits(int64_t m, int64_t group_size, Body body) {
  const auto of_group = [&](auto group) {
    constexpr int kGroup = decltype(group)::value;
    if (m == 1) return body(DigitsLayout<kGroup, 1>{}, BitmapDigitsKernel<kGroup, 1>);
    if (m == 2) return body(DigitsLayout<kGroup, 2>{}, BitmapDigitsKernel<kGroup, 2>);
    return body(DigitsLayout<kGroup, 4>{}, BitmapDigitsKernel<kGroup, 4>);
  };
  return group_size == 64 ? of_group(std::integral_constant<int, 64>{}) : of_group(std::integral_constant<int, 128>{});
}

// Whether the kernel takes such a call: shared memory holds the digits.
inline bool TakesBitmapDigits(int64_t m, int64_t k, int64_t group_size) {
  if (m > kMostDigitTokens || k > 32768 || NumQuads(k) % 2 != 0 || (group_size != 64 && group_size != 128)) return false;
  return WithDigits(m, group_size, [&](auto layout, auto) { return layout.Bytes(k) <= MostSharedBytes(); });
}

inline cudaError_t LaunchBitmapDigits(const BitmapDigitsArgs& a, int64_t group_size, cudaStream_t stream) {
  const auto blocks = static_cast<unsigned>(min(NumPanels(a.n), static_cast<int64_t>(NumMultiprocessors())));
  return WithDigits(a.m, group_size, [&](auto layout, auto kernel) {
    return Launch(kernel, blocks, kDigitThreads, static_cast<size_t>(layout.Bytes(a.k)), stream, a);
  });
}

}  // namespace prism::cuda
