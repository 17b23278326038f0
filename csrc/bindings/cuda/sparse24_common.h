// Shapes of 2:4 weights in the order of sparse tensor cores, as the bindings check them.
#pragma once
#include "../../cuda/common/sparse24.cuh"
#include "../../cuda/sparse24_dual_shift_linear.cuh"
#include "dual_shift_common.h"

namespace prism {

// values (16-bit, `codes` false) or words of codes, and columns of a weight [n, k].
inline void CheckSparse24(const Tensor& packed, const Tensor& columns, int64_t n, int64_t k, bool codes, const char* op) {
  STD_TORCH_CHECK(n >= 0 && k >= 0, op, ": n and k must be at least 0");
  const int64_t tiles = NumPanels(n) * NumSparseTiles(k);
  if (codes) {
    CheckTensor(packed, ScalarType::Int, op, "codes");
  } else {
    FloatDType(packed, op, "values");
    STD_TORCH_CHECK(packed.element_size() == 2, op, ": values must be 16-bit floats");
  }
  CheckNumel(packed, tiles * (codes ? 64 : 512), op, codes ? "codes" : "values");
  CheckTensor(columns, ScalarType::Int, op, "columns");
  CheckNumel(columns, tiles * 32, op, "columns");
  // Kernels read 16 bytes at once; only a view into another tensor can begin elsewhere.
  for (const Tensor* tensor : {&packed, &columns}) {
    STD_TORCH_CHECK(reinterpret_cast<uintptr_t>(tensor->const_data_ptr()) % 16 == 0, op, ": weights must be aligned to 16 bytes");
  }
}

// A weight [n, k] of 4-bit codes with its scales, on the device of `first`.
inline cuda::Sparse24DualShift CheckSparse24Codes(const Tensor& codes, const Tensor& columns, const Tensor& scale,
                                                  const Tensor& zero, const Tensor& column_scale, const Tensor& first,
                                                  int64_t n, int64_t k, int64_t group_size, const char* op) {
  CheckSparse24(codes, columns, n, k, true, op);
  STD_TORCH_CHECK(group_size >= 32 && group_size % 32 == 0, op, ": group_size must be a multiple of 32");
  CheckPanelGrid(scale, zero, NumPanels(n), CeilDiv(k, group_size), 4, Codebook::kUniform, op);
  CheckTensor(column_scale, ScalarType::BFloat16, op, "column_scale");
  CheckNumel(column_scale, k, op, "column_scale");
  CheckPlaced(codes, first, 16, op, "codes");
  CheckPlaced(columns, first, 16, op, "columns");
  CheckPlaced(scale, first, 4, op, "scale");
  CheckPlaced(zero, first, 2, op, "zero");
  CheckPlaced(column_scale, first, 2, op, "column_scale");
  return {ConstData<uint32_t>(codes), ConstData<uint32_t>(columns), ConstData<uint16_t>(scale), ConstData<uint8_t>(zero),
          ConstData<uint16_t>(column_scale), group_size};
}

// What the two linears need around their kernels. The current stream must be set before: it allocates.
struct SparseCall {
  DType dtype;
  int64_t m, k;
  const void* bias;
  Tensor y, scratch;
};

inline SparseCall PrepareSparseCall(const Tensor& x, const std::optional<Tensor>& bias, int64_t n, int64_t scratch_floats, const char* op) {
  if (bias.has_value()) {
    CheckTensor(*bias, x.scalar_type(), op, "bias");
    CheckNumel(*bias, n, op, "bias");
  }
  return {FloatDType(x, op, "x"), x.size(0), x.size(1), bias.has_value() ? bias->const_data_ptr() : nullptr,
          torch::stable::new_empty(x, {x.size(0), n}),
          torch::stable::new_empty(x, {scratch_floats}, ScalarType::Float)};
}

inline void CheckSparseActivations(const Tensor& x, const char* op) {
  STD_TORCH_CHECK(x.dim() == 2 && x.is_contiguous() && FloatDType(x, op, "x") != DType::kFloat32, op,
                  ": needs 16-bit x [m, k]");
}

}  // namespace prism
