// Checks and views that the bindings of the ops over tiles share.
#pragma once
#include "../../cpu/tiered.h"
#include "../common.h"

namespace prism {

// A weight of n rows, k columns. Kernels follow panel_offsets into masks and values; from there on they bound their reads.
inline cpu::TieredBlocks CheckTiered(const Tensor& tiers, const Tensor& masks, const Tensor& values,
                                     const Tensor& panel_offsets, int64_t n, int64_t k, const char* op) {
  CheckTensor(tiers, ScalarType::Byte, op, "tiers");
  CheckTensor(masks, ScalarType::Byte, op, "masks");
  CheckTensor(panel_offsets, ScalarType::Long, op, "panel_offsets");
  const DType dtype = FloatDType(values, op, "values");
  STD_TORCH_CHECK(n >= 0 && k >= 0, op, ": n and k must be at least 0");
  const int64_t panels = NumPanels(n), num_masks = masks.numel() / cpu::kTileMaskBytes;
  CheckNumel(tiers, panels * cpu::NumTiles(k), op, "tiers");
  CheckNumel(panel_offsets, 2 * (panels + 1), op, "panel_offsets");
  const int64_t* offsets = ConstData<int64_t>(panel_offsets);
  bool falls = offsets[0] < 0 || offsets[1] < 0;
  for (int64_t i = 0; i < 2 * panels; ++i) falls |= offsets[i + 2] < offsets[i];
  STD_TORCH_CHECK(!falls && offsets[2 * panels] <= num_masks && offsets[2 * panels + 1] <= values.numel(), op,
                  ": panel_offsets must rise from 0 or more to at most ", num_masks, " masks and ", values.numel(),
                  " values");
  return {ConstData<uint8_t>(tiers), ConstData<uint8_t>(masks), values.const_data_ptr(), offsets, num_masks,
          values.numel(), k, dtype};
}

}  // namespace prism
