// What the CUDA bindings of the dual-shift ops share: device and alignment beside the checks of the CPU bindings.
#pragma once
#include "../cpu/quantized.h"
#include "common.h"

namespace prism {

// On the device of `first`, and aligned for the vectors that kernels read; only a view into another tensor can begin at
// an odd address.
inline void CheckPlaced(const Tensor& t, const Tensor& first, size_t alignment, const char* op, const char* name) {
  STD_TORCH_CHECK(t.is_cuda() && t.get_device_index() == first.get_device_index(), op, ": ", name,
                  " must be on the same CUDA device as the other tensors");
  STD_TORCH_CHECK(reinterpret_cast<uintptr_t>(t.const_data_ptr()) % alignment == 0, op, ": ", name, " must be aligned to ",
                  alignment, " bytes");
}

// The tensors of a weight [n, k]; returns how many groups a row has.
inline int64_t CheckDualShift(const Tensor& codes, const Tensor& scale, const Tensor& zero, const Tensor& column_scale,
                              const Tensor& first, int64_t n, int64_t k, int64_t bits, int64_t group_size,
                              Codebook codebook, const char* op) {
  STD_TORCH_CHECK(n >= 0 && group_size >= 1, op, ": needs n >= 0 and group_size >= 1");
  const int64_t groups = CeilDiv(k, group_size);
  CheckTensor(codes, ScalarType::Byte, op, "codes");
  CheckNumel(codes, NumPanels(n) * PanelCodeBytes(k, static_cast<int>(bits)), op, "codes");
  CheckPanelGrid(scale, zero, NumPanels(n), groups, static_cast<int>(bits), codebook, op);
  CheckTensor(column_scale, ScalarType::BFloat16, op, "column_scale");
  CheckNumel(column_scale, k, op, "column_scale");
  CheckPlaced(codes, first, 16, op, "codes");
  CheckPlaced(scale, first, 4, op, "scale");
  CheckPlaced(zero, first, 2, op, "zero");
  CheckPlaced(column_scale, first, 2, op, "column_scale");
  return groups;
}

}  // namespace prism
