// Checks that the CUDA bindings of the CSR ops share. Offsets and columns stay on the device: kernels bound them.
#pragma once
#include "../../cuda/csr.cuh"
#include "../common.h"
#include "common.h"

namespace prism {

inline cuda::CsrRows CheckCsrOnDevice(const Tensor& values, const Tensor& columns, const Tensor& row_offsets, int64_t k,
                                      const char* op) {
  const DType dtype = FloatDType(values, op, "values");
  const bool wide_columns = columns.scalar_type() == ScalarType::Int;
  const bool wide_offsets = row_offsets.scalar_type() == ScalarType::Long;
  CheckTensor(columns, wide_columns ? ScalarType::Int : ScalarType::Short, op, "columns");
  CheckTensor(row_offsets, wide_offsets ? ScalarType::Long : ScalarType::Int, op, "row_offsets");
  CheckNumel(columns, values.numel(), op, "columns");
  STD_TORCH_CHECK(row_offsets.numel() >= 1 && k >= 0, op, ": row_offsets must have n + 1 elements, and k be at least 0");
  STD_TORCH_CHECK(columns.get_device_index() == values.get_device_index() && row_offsets.get_device_index() == values.get_device_index(),
                  op, ": columns and row_offsets must be on the values' device");
  const int64_t num_values = k > 0 ? values.numel() : 0;  // without columns there is nothing that a value could multiply
  return {values.const_data_ptr(), columns.const_data_ptr(), row_offsets.const_data_ptr(), num_values,
          row_offsets.numel() - 1, k, dtype, wide_columns, wide_offsets};
}

}  // namespace prism
