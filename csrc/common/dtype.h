// Storage dtypes of weights and activations and their exact scalar conversions; no torch, no intrinsics.
#pragma once
#include <cstdint>
#include <cstring>

#include "host_device.h"

namespace prism {

enum class DType { kFloat32, kFloat16, kBFloat16 };

PRISM_HOST_DEVICE inline int64_t DTypeBytes(DType dtype) { return dtype == DType::kFloat32 ? 4 : 2; }

PRISM_HOST_DEVICE inline uint32_t FloatBits(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

PRISM_HOST_DEVICE inline float BitsToFloat(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

PRISM_HOST_DEVICE inline float BFloat16ToFloat(uint16_t bits) { return BitsToFloat(static_cast<uint32_t>(bits) << 16); }

// Round to nearest even; NaN becomes the quiet NaN of the same sign.
PRISM_HOST_DEVICE inline uint16_t FloatToBFloat16(float value) {
  const uint32_t bits = FloatBits(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>((bits >> 16) | 0x0040u);
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

PRISM_HOST_DEVICE inline float Float16ToFloat(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16;
  const uint32_t exponent = (half >> 10) & 0x1fu;
  const uint32_t mantissa = half & 0x3ffu;
  if (exponent == 0x1f) return BitsToFloat(sign | 0x7f800000u | (mantissa << 13));
  if (exponent != 0) return BitsToFloat(sign | ((exponent + 112u) << 23) | (mantissa << 13));
  const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;  // subnormal half: mantissa * 2^-24, exact in float
  return BitsToFloat(sign | FloatBits(magnitude));
}

// Round to nearest even; overflow gives infinity.
PRISM_HOST_DEVICE inline uint16_t FloatToFloat16(float value) {
  const uint32_t bits = FloatBits(value);
  const uint32_t sign = (bits >> 16) & 0x8000u;
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return static_cast<uint16_t>(sign | 0x7e00u);
  if (magnitude >= 0x477ff000u) return static_cast<uint16_t>(sign | 0x7c00u);  // >= 65520 rounds to infinity
  if (magnitude < 0x38800000u) {  // below 2^-14: adding 0.5 lines the mantissa up with units of 2^-24
    const float aligned = BitsToFloat(magnitude) + 0.5f;
    return static_cast<uint16_t>(sign | (FloatBits(aligned) - 0x3f000000u));
  }
  const uint32_t rounded = magnitude + 0xfffu + ((magnitude >> 13) & 1u) - (112u << 23);
  return static_cast<uint16_t>(sign | (rounded >> 13));
}

PRISM_HOST_DEVICE inline float LoadFloat(const void* data, DType dtype, int64_t index) {
  switch (dtype) {
    case DType::kFloat32: return static_cast<const float*>(data)[index];
    case DType::kFloat16: return Float16ToFloat(static_cast<const uint16_t*>(data)[index]);
    default: return BFloat16ToFloat(static_cast<const uint16_t*>(data)[index]);
  }
}

PRISM_HOST_DEVICE inline void StoreFloat(float value, void* data, DType dtype, int64_t index) {
  switch (dtype) {
    case DType::kFloat32: static_cast<float*>(data)[index] = value; break;
    case DType::kFloat16: static_cast<uint16_t*>(data)[index] = FloatToFloat16(value); break;
    default: static_cast<uint16_t*>(data)[index] = FloatToBFloat16(value); break;
  }
}

PRISM_HOST_DEVICE constexpr int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace prism
