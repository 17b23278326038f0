// What every binding file needs: stable-ABI headers, memory-safety checks and dtype mapping. No kernel code here.
// The public Python functions own the argument contract; these checks repeat only what memory safety needs.
#pragma once
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/util/Exception.h>

#include <optional>
#include <string>
#include <tuple>

#include "../common/dtype.h"

namespace prism {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

inline void CheckTensor(const Tensor& t, ScalarType dtype, const char* op, const char* name) {
  STD_TORCH_CHECK(t.scalar_type() == dtype, op, ": ", name, " has the wrong dtype");
  STD_TORCH_CHECK(t.is_contiguous(), op, ": ", name, " must be contiguous");
}

inline void CheckNumel(const Tensor& t, int64_t numel, const char* op, const char* name) {
  STD_TORCH_CHECK(t.numel() == numel, op, ": ", name, " must have ", numel, " elements, got ", t.numel());
}

inline DType FloatDType(const Tensor& t, const char* op, const char* name) {
  STD_TORCH_CHECK(t.is_contiguous(), op, ": ", name, " must be contiguous");
  switch (t.scalar_type()) {
    case ScalarType::Float: return DType::kFloat32;
    case ScalarType::Half: return DType::kFloat16;
    case ScalarType::BFloat16: return DType::kBFloat16;
    default: STD_TORCH_CHECK(false, op, ": ", name, " must be float32, float16 or bfloat16"); return DType::kFloat32;
  }
}

template <class T>
const T* ConstData(const Tensor& t) { return static_cast<const T*>(t.const_data_ptr()); }

template <class T>
T* MutableData(const Tensor& t) { return static_cast<T*>(t.mutable_data_ptr()); }

}  // namespace prism
