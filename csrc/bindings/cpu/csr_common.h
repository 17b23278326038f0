// Checks and views that the bindings of the CSR ops share.
#pragma once
#include "../../cpu/csr.h"
#include "../common.h"

namespace prism {

// Kernels follow row_offsets into values and columns; columns they bound themselves.
inline cpu::CsrRows CheckCsr(const Tensor& values, const Tensor& columns, const Tensor& row_offsets, int64_t k,
                             const char* op) {
  const DType dtype = FloatDType(values, op, "values");
  const bool wide_columns = columns.scalar_type() == ScalarType::Int;
  const bool wide_offsets = row_offsets.scalar_type() == ScalarType::Long;
  CheckTensor(columns, wide_columns ? ScalarType::Int : ScalarType::Short, op, "columns");
  CheckTensor(row_offsets, wide_offsets ? ScalarType::Long : ScalarType::Int, op, "row_offsets");
  CheckNumel(columns, values.numel(), op, "columns");
  STD_TORCH_CHECK(row_offsets.numel() >= 1 && k >= 0, op, ": row_offsets must have n + 1 elements, and k be at least 0");
  const cpu::CsrRows weight{values.const_data_ptr(), columns.const_data_ptr(), row_offsets.const_data_ptr(), k, dtype,
                            wide_columns, wide_offsets};
  const int64_t n = row_offsets.numel() - 1;
  bool falls = weight.Offset(0) < 0;
  for (int64_t row = 0; row < n; ++row) falls |= weight.Offset(row + 1) < weight.Offset(row);
  STD_TORCH_CHECK(!falls && weight.Offset(n) <= values.numel(), op, ": row_offsets must rise from 0 or more to at most ",
                  values.numel());
  return weight;
}

}  // namespace prism
