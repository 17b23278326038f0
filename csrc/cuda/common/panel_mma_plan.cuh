// How a linear over panels splits k, without the kernels: bindings allocate its workspace.
#pragma once
#include "linear_output.cuh"

namespace prism::cuda {

inline constexpr int64_t kFewTokens = 16;  // up to here no workspace is needed

// Blocks of the grid that share the sums of one output.
inline int PanelLinearSplits(int64_t m, int64_t n, int64_t k) {
  if (m <= kFewTokens) return 1;
  constexpr int64_t kTokens = 64, kPanels = 16, kColumns = 64, kLeastStages = 8, kMost = 16;
  const int64_t tiles = CeilDiv(m, kTokens) * CeilDiv(NumPanels(n), kPanels);
  const int64_t wanted = NumMultiprocessors() / tiles, able = CeilDiv(k, kColumns) / kLeastStages;
  const int64_t splits = wanted < able ? wanted : able;
  return static_cast<int>(splits < 1 ? 1 : splits > kMost ? kMost : splits);
}

// Floats of scratch that the launch needs, 0 for none.
inline int64_t PanelLinearWorkspace(int64_t m, int64_t n, int64_t k) {
  return PartialFloats(PanelLinearSplits(m, n, k), m, n);
}

}  // namespace prism::cuda
