// Checks and views that the bindings of the bitmap ops share.
#pragma once
#include "../../cpu/activations.h"
#include "../../cpu/bitmap_dual_shift.h"
#include "../../cpu/bitmap_values.h"
#include "../common.h"

namespace prism {

// Kernels follow row_offsets into a buffer of `size` elements; from there on they bound their own reads.
inline void CheckRowOffsets(const Tensor& row_offsets, int64_t n, int64_t size, const char* op) {
  CheckTensor(row_offsets, ScalarType::Int, op, "row_offsets");
  CheckNumel(row_offsets, n + 1, op, "row_offsets");
  const int32_t* offsets = ConstData<int32_t>(row_offsets);
  int32_t falls = offsets[0] < 0;
  for (int64_t row = 0; row < n; ++row) falls |= offsets[row + 1] < offsets[row];
  STD_TORCH_CHECK(falls == 0 && offsets[n] <= size, op, ": row_offsets must rise from 0 or more to at most ", size);
}

inline int64_t CheckBitmap(const Tensor& bitmap, int64_t k, const char* op) {
  CheckTensor(bitmap, ScalarType::Byte, op, "bitmap");
  STD_TORCH_CHECK(k >= 0 && bitmap.dim() == 2 && bitmap.size(1) == 8 * cpu::NumBlocks(k), op,
                  ": bitmap must have 8 bytes per 64 columns");
  return bitmap.size(0);
}

inline const void* CheckBias(const std::optional<Tensor>& bias, const Tensor& x, int64_t n, const char* op) {
  if (!bias.has_value()) return nullptr;
  CheckTensor(*bias, x.scalar_type(), op, "bias");
  CheckNumel(*bias, n, op, "bias");
  return bias->const_data_ptr();
}

inline cpu::BitmapValues CheckBitmapValues(const Tensor& bitmap, const Tensor& values, const Tensor& row_offsets,
                                           int64_t k, const char* op) {
  const DType dtype = FloatDType(values, op, "values");
  const int64_t n = CheckBitmap(bitmap, k, op);
  CheckRowOffsets(row_offsets, n, values.numel(), op);
  const auto* offsets = ConstData<int32_t>(row_offsets);
  return {ConstData<uint8_t>(bitmap), values.const_data_ptr(), offsets, values.numel(), k, dtype};
}

// A weight [n, k], k by the column scale.
inline cpu::BitmapDualShift CheckBitmapDualShift(const Tensor& bitmap, const Tensor& codes, const Tensor& row_offsets,
                                                 const Tensor& scale, const Tensor& zero, const Tensor& column_scale,
                                                 int64_t bits, int64_t group_size, const std::string& codebook,
                                                 const char* op) {
  CheckTensor(column_scale, ScalarType::BFloat16, op, "column_scale");
  CheckTensor(codes, ScalarType::Byte, op, "codes");
  CheckTensor(scale, ScalarType::BFloat16, op, "scale");
  CheckTensor(zero, ScalarType::Byte, op, "zero");
  const int64_t k = column_scale.numel(), n = CheckBitmap(bitmap, k, op);
  CheckRowOffsets(row_offsets, n, codes.numel(), op);
  const Codebook book = codebook == "nf4" ? Codebook::kNf4 : codebook == "nf3" ? Codebook::kNf3 : Codebook::kUniform;
  STD_TORCH_CHECK(IsCodeWidth(bits) && (book == Codebook::kUniform || CodebookSize(book) == 1 << bits), op,
                  ": bits must fit the codebook");
  STD_TORCH_CHECK(group_size >= 1, op, ": group_size must be at least 1");
  const int64_t num_groups = CeilDiv(k, group_size);
  CheckNumel(scale, n * num_groups, op, "scale");
  if (book == Codebook::kUniform) CheckNumel(zero, n * PackedBytes(num_groups, bits), op, "zero");
  const float* levels = CodebookLevels(book);
  const float* zero_level = std::find(levels, levels + CodebookSize(book), 0.0f);
  return {ConstData<uint8_t>(bitmap), ConstData<uint8_t>(codes), ConstData<int32_t>(row_offsets),
          ConstData<uint16_t>(scale), ConstData<uint8_t>(zero), levels, codes.numel(), k,
          std::min(group_size, std::max<int64_t>(k, 1)), num_groups, static_cast<int>(bits),
          static_cast<int>(zero_level - levels)};
}

// A linear's kernel on ranges of rows, each stored by the thread that made it. y [m, n] of dtype; bias [n] or null.
template <class Kernel, class Weight, class T>
void RunBitmapLinear(Kernel kernel, const Weight& weight, const std::vector<T>& activations, const void* bias, DType dtype,
                     int64_t m, int64_t n, void* y) {
  std::vector<float> sums(static_cast<size_t>(m * n));
  const int64_t grain = std::max<int64_t>(4, 32768 / std::max<int64_t>(weight.k, 1));
  torch::stable::parallel_for(0, n, grain, [&](int64_t begin, int64_t end) {
    kernel(weight, activations.data(), m, begin, end, sums.data(), n);
    cpu::StoreColumns(sums.data(), bias, m, n, begin, end, dtype, y);
  });
}

}  // namespace prism
