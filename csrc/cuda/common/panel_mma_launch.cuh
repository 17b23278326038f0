// Which kernel of panel_mma.cuh runs, and its launch. Needs m, n and k of at least 1, and x as PanelLinearArgs say:
// PadActivations makes it so where rows are not whole 16-byte vectors.
#pragma once
#include "panel_mma_few.cuh"
#include "panel_mma_many.cuh"
#include "panel_mma_plan.cuh"

namespace prism::cuda {

template <class Source, class Arithmetic, int kTiles>
cudaError_t LaunchFew(const typename Source::Args& weight, const PanelLinearArgs& a, cudaStream_t stream) {
  const int64_t sets = CeilDiv(NumPanels(a.out.n), kPanelsPerWarp), share = CeilDiv(NumBlocks32(a.k), int64_t{4});
  const int warps = static_cast<int>(min(share, static_cast<int64_t>(Source::kFewWarps)));
  const size_t shared = static_cast<size_t>(warps) * (FewSums<kTiles>::kWarpFloats * 4 + kPanelsPerWarp * Source::kSharedBytes);
  return Launch(PanelLinearFewKernel<Source, Arithmetic, kTiles>, static_cast<unsigned>(sets),
                static_cast<unsigned>(warps * 32), shared, stream, weight, a);
}

template <class Source, class Arithmetic>
cudaError_t LaunchMany(const typename Source::Args& weight, const PanelLinearArgs& a, cudaStream_t stream) {
  const int64_t tiles = CeilDiv(a.out.m, kManyTokens) * CeilDiv(NumPanels(a.out.n), kManyPanels);
  const size_t shared = static_cast<size_t>(kManyStages * kManyStageBytes + kManyPanels * Source::kSharedBytes);
  const cudaError_t error = Launch(PanelLinearManyKernel<Source, Arithmetic>,
                                   dim3(static_cast<unsigned>(tiles), static_cast<unsigned>(a.splits)), kManyThreads,
                                   shared, stream, weight, a);
  return error != cudaSuccess || a.splits == 1 ? error : AddSplits(a.out, a.splits, stream);
}

// args.out.partial: PanelLinearWorkspace(m, n, k) floats.
template <class Source, class Arithmetic>
cudaError_t LaunchPanelLinear(const typename Source::Args& weight, PanelLinearArgs a, cudaStream_t stream) {
  if (a.group_blocks == 0) a.group_blocks = static_cast<int>(NumBlocks32(a.k));
  a.splits = PanelLinearSplits(a.out.m, a.out.n, a.k);
  if (a.splits == 1) a.out.partial = nullptr;
  if (a.out.m <= 8) return LaunchFew<Source, Arithmetic, 1>(weight, a, stream);
  if (a.out.m <= kFewTokens) return LaunchFew<Source, Arithmetic, 2>(weight, a, stream);
  return LaunchMany<Source, Arithmetic>(weight, a, stream);
}

}  // namespace prism::cuda
