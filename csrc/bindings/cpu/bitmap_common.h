// Checks that the bindings of the bitmap ops share.
#pragma once
#include "../../cpu/bitmap.h"
#include "../common.h"

namespace prism {

// Kernels follow panel_offsets into a stream of `size` elements or bytes; from there on they bound their own reads.
inline void CheckPanelOffsets(const Tensor& panel_offsets, int64_t panels, int64_t size, const char* op) {
  CheckTensor(panel_offsets, ScalarType::Long, op, "panel_offsets");
  CheckNumel(panel_offsets, panels + 1, op, "panel_offsets");
  const int64_t* offsets = ConstData<int64_t>(panel_offsets);
  bool rises = offsets[0] >= 0 && offsets[panels] <= size;
  for (int64_t panel = 0; panel < panels; ++panel) rises &= offsets[panel] <= offsets[panel + 1];
  STD_TORCH_CHECK(rises, op, ": panel_offsets must rise from 0 or more to at most ", size);
}

// One mask per `columns` columns (2 or 4) of a panel of the weight [n, k].
inline void CheckBitmap(const Tensor& bitmap, int64_t n, int64_t k, int64_t columns, const char* op) {
  CheckTensor(bitmap, ScalarType::Byte, op, "bitmap");
  STD_TORCH_CHECK(n >= 0 && k >= 0, op, ": n and k must be at least 0");
  CheckNumel(bitmap, NumPanels(n) * CeilDiv(k, columns) * 2 * columns, op, "bitmap");
}

// Panels per task, so that a task is worth a thread.
inline int64_t PanelGrain(int64_t k) { return 1 + 65536 / (kPanelRows * k + 1); }

// Panel sizes at offsets[panel + 1] to where panels begin; returns the end of the last.
inline int64_t SumOffsets(int64_t* offsets, int64_t panels) {
  offsets[0] = 0;
  for (int64_t panel = 0; panel < panels; ++panel) offsets[panel + 1] += offsets[panel];
  return offsets[panels];
}

}  // namespace prism
