// Activations in, results out: dtype conversion of short rows around the float32 kernels.
#pragma once
#include "../common/dtype.h"

namespace prism::cpu {

// out[i] = x[i] * scale[i % k] for `rows` rows of k; scale may be null.
inline void ScaleRowsToFloat(const void* x, DType dtype, int64_t rows, int64_t k, const float* scale, float* out) {
  for (int64_t r = 0; r < rows; ++r, out += k) {
    const int64_t base = r * k;
    if (dtype == DType::kFloat32) {
      for (int64_t j = 0; j < k; ++j) out[j] = static_cast<const float*>(x)[base + j];
    } else if (dtype == DType::kBFloat16) {
      for (int64_t j = 0; j < k; ++j) out[j] = BFloat16ToFloat(static_cast<const uint16_t*>(x)[base + j]);
    } else {
      for (int64_t j = 0; j < k; ++j) out[j] = Float16ToFloat(static_cast<const uint16_t*>(x)[base + j]);
    }
    if (scale != nullptr) {
      for (int64_t j = 0; j < k; ++j) out[j] *= scale[j];
    }
  }
}

// y[i] = sums[i] + bias[i % n], rounded once to dtype; bias may be null.
inline void StoreRows(const float* sums, const void* bias, int64_t rows, int64_t n, DType dtype, void* y) {
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t i = 0; i < n; ++i) {
      const float shift = bias != nullptr ? LoadFloat(bias, dtype, i) : 0.0f;
      StoreFloat(sums[r * n + i] + shift, y, dtype, r * n + i);
    }
  }
}

}  // namespace prism::cpu
