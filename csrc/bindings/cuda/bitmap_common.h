// Checks that the CUDA bindings of the bitmap ops share. Offsets stay on the device: kernels bound every read themselves.
#pragma once
#include "../cpu/bitmap_common.h"
#include "common.h"

namespace prism {

inline void CheckOnDevice(const Tensor& t, const Tensor& first, const char* op, const char* name) {
  STD_TORCH_CHECK(t.is_cuda() && t.get_device_index() == first.get_device_index(), op, ": ", name,
                  " must be on the same CUDA device as the other tensors");
}

// bitmap and panel_offsets of a weight [n, k]; kernels read words of 4 bytes.
inline void CheckBitmapOnDevice(const Tensor& bitmap, const Tensor& panel_offsets, const Tensor& stream, int64_t n,
                                int64_t k, int64_t columns, const char* op) {
  CheckBitmap(bitmap, n, k, columns, op);
  STD_TORCH_CHECK(reinterpret_cast<uintptr_t>(bitmap.const_data_ptr()) % 4 == 0, op, ": bitmap must be aligned to 4 bytes");
  CheckTensor(panel_offsets, ScalarType::Long, op, "panel_offsets");
  CheckNumel(panel_offsets, NumPanels(n) + 1, op, "panel_offsets");
  CheckOnDevice(bitmap, stream, op, "bitmap");
  CheckOnDevice(panel_offsets, stream, op, "panel_offsets");
}

inline void CheckBiasOnDevice(const std::optional<Tensor>& bias, const Tensor& x, int64_t n, const char* op) {
  if (!bias.has_value()) return;
  CheckTensor(*bias, x.scalar_type(), op, "bias");
  CheckNumel(*bias, n, op, "bias");
  CheckOnDevice(*bias, x, op, "bias");
}

// y [m, n] where there are no columns to multiply: every row is the bias, or 0.
inline Tensor BiasOnly(Tensor y, const std::optional<Tensor>& bias, const CurrentStream& current, const char* op) {
  const size_t row = static_cast<size_t>(y.size(1) * DTypeBytes(FloatDType(y, op, "x")));
  auto* const to = static_cast<char*>(y.mutable_data_ptr());
  for (int64_t i = 0; i < y.size(0); ++i) {
    char* const at = to + static_cast<size_t>(i) * row;
    CheckLaunch(bias.has_value() ? cudaMemcpyAsync(at, bias->const_data_ptr(), row, cudaMemcpyDeviceToDevice, current.stream)
                                 : cudaMemsetAsync(at, 0, row, current.stream),
                op);
  }
  return y;
}

// The last panel offset, once the kernels before it are done: packing needs a size on the host.
inline int64_t LastOffset(const Tensor& panel_offsets, cudaStream_t stream, const char* op) {
  int64_t last = 0;
  const int64_t* from = ConstData<int64_t>(panel_offsets) + panel_offsets.numel() - 1;
  CheckLaunch(cudaMemcpyAsync(&last, from, sizeof last, cudaMemcpyDeviceToHost, stream), op);
  CheckLaunch(cudaStreamSynchronize(stream), op);
  return last;
}

}  // namespace prism
