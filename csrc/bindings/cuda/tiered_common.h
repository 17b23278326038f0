// Checks that the CUDA bindings of the ops over tiles share. The map, the masks and the offsets stay on the device: kernels
// bound every read themselves.
#pragma once
#include "../../cuda/tiered.cuh"
#include "../common.h"
#include "common.h"

namespace prism {

inline cuda::TieredBlocks CheckTieredOnDevice(const Tensor& tiers, const Tensor& masks, const Tensor& values,
                                              const Tensor& panel_offsets, int64_t n, int64_t k, const char* op) {
  CheckTensor(tiers, ScalarType::Byte, op, "tiers");
  CheckTensor(masks, ScalarType::Byte, op, "masks");
  CheckTensor(panel_offsets, ScalarType::Long, op, "panel_offsets");
  const DType dtype = FloatDType(values, op, "values");
  STD_TORCH_CHECK(n >= 0 && k >= 0, op, ": n and k must be at least 0");
  const cuda::TieredBlocks weight = {ConstData<uint8_t>(tiers), ConstData<uint8_t>(masks), values.const_data_ptr(),
                                     ConstData<int64_t>(panel_offsets), masks.numel() / cuda::kTileMaskBytes,
                                     values.numel(), n, k, dtype};
  CheckNumel(tiers, NumPanels(n) * weight.Tiles(), op, "tiers");
  CheckNumel(panel_offsets, 2 * (NumPanels(n) + 1), op, "panel_offsets");
  STD_TORCH_CHECK(reinterpret_cast<uintptr_t>(weight.masks) % 16 == 0, op, ": masks must be aligned to 16 bytes");
  for (const Tensor* t : {&tiers, &masks, &panel_offsets}) {
    STD_TORCH_CHECK(t->get_device_index() == values.get_device_index(), op, ": all tensors must be on one device");
  }
  return weight;
}

}  // namespace prism
