// Stands in for the CUDA runtime and the built-ins of device code when a .cu file is compiled by the host compiler for the
// emulator (fibers.h). Only what the kernels use; a missing name is a compile error, not a wrong result. There is no
// `__shared__`: kernels take their shared memory through PRISM_DYNAMIC_SMEM, which gives each block its own.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "fibers.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __maxnreg__(...)

struct uint2 { uint32_t x, y; };
struct alignas(16) uint4 { uint32_t x, y, z, w; };
struct float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
inline uint2 make_uint2(uint32_t x, uint32_t y) { return {x, y}; }
inline uint4 make_uint4(uint32_t x, uint32_t y, uint32_t z, uint32_t w) { return {x, y, z, w}; }
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

using cudaStream_t = void*;
enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidValue = 1 };

#define threadIdx (prism::emulator::Current().thread)
#define blockIdx (prism::emulator::Current().block->index)
#define blockDim (prism::emulator::Active()->block_dim)
#define gridDim (prism::emulator::Active()->grid_dim)

using std::isfinite;
using std::isnan;
using std::max;
using std::min;

inline void __syncthreads() { prism::emulator::SwitchToScheduler(prism::emulator::State::kAtBlockBarrier); }
inline void __syncwarp(unsigned mask = 0xffffffffu) {
  if (mask != 0xffffffffu) prism::emulator::Fail("__syncwarp of part of a warp");
  prism::emulator::SwitchToScheduler(prism::emulator::State::kAtWarpBarrier);
}
inline void __threadfence() {}

namespace prism::emulator {
inline void RequireWholeWarp(unsigned mask) {
  if (mask != 0xffffffffu) Fail("a collective of part of a warp");
}
}  // namespace prism::emulator

template <class T>
T __shfl_sync(unsigned mask, T value, int from, int width = 32) {
  prism::emulator::RequireWholeWarp(mask);
  const int lane = prism::emulator::Lane();
  return prism::emulator::Exchange(value)[(lane & ~(width - 1)) | (from & (width - 1))];
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lanes) {
  prism::emulator::RequireWholeWarp(mask);
  return prism::emulator::Exchange(value)[prism::emulator::Lane() ^ lanes];
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta) {
  prism::emulator::RequireWholeWarp(mask);
  const unsigned lane = static_cast<unsigned>(prism::emulator::Lane());
  return prism::emulator::Exchange(value)[lane + delta < 32 ? lane + delta : lane];
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta) {
  prism::emulator::RequireWholeWarp(mask);
  const unsigned lane = static_cast<unsigned>(prism::emulator::Lane());
  return prism::emulator::Exchange(value)[lane >= delta ? lane - delta : lane];
}
inline unsigned __ballot_sync(unsigned mask, int predicate) {
  prism::emulator::RequireWholeWarp(mask);
  const auto all = prism::emulator::Exchange(predicate);
  unsigned bits = 0;
  for (int i = 0; i < 32; ++i) bits |= static_cast<unsigned>(all[i] != 0) << i;
  return bits;
}
inline int __reduce_add_sync(unsigned mask, int value) {
  prism::emulator::RequireWholeWarp(mask);
  int sum = 0;
  for (const int each : prism::emulator::Exchange(value).lanes) sum += each;
  return sum;
}
inline int __any_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) != 0; }
inline int __all_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) == 0xffffffffu; }

// Fibers switch at barriers only, so a plain read-modify-write is atomic.
template <class T>
T atomicAdd(T* at, T value) {
  const T before = *at;
  *at = before + value;
  return before;
}
inline unsigned atomicMax(unsigned* at, unsigned value) {
  const unsigned before = *at;
  *at = std::max(before, value);
  return before;
}
inline unsigned atomicMin(unsigned* at, unsigned value) {
  const unsigned before = *at;
  *at = std::min(before, value);
  return before;
}

inline int __popc(unsigned value) { return __builtin_popcount(value); }
inline int __clz(int value) { return value == 0 ? 32 : __builtin_clz(static_cast<unsigned>(value)); }
inline int __ffs(int value) { return __builtin_ffs(value); }
inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift) {
  return static_cast<unsigned>((static_cast<uint64_t>(high) << 32 | low) >> (shift & 31u));
}
inline unsigned __funnelshift_rc(unsigned low, unsigned high, unsigned shift) {
  return static_cast<unsigned>((static_cast<uint64_t>(high) << 32 | low) >> std::min(shift, 32u));
}
inline unsigned __byte_perm(unsigned a, unsigned b, unsigned selector) {
  const uint64_t bytes = static_cast<uint64_t>(b) << 32 | a;
  unsigned result = 0;
  for (int i = 0; i < 4; ++i) {
    const unsigned choice = selector >> 4 * i & 15u;
    unsigned byte = static_cast<unsigned>(bytes >> 8 * (choice & 7)) & 255u;
    if (choice & 8) byte = byte & 128u ? 255u : 0u;  // replicates the sign
    result |= byte << 8 * i;
  }
  return result;
}
inline float __int_as_float(int bits) { float value; std::memcpy(&value, &bits, 4); return value; }
inline float __uint_as_float(unsigned bits) { float value; std::memcpy(&value, &bits, 4); return value; }
inline int __float_as_int(float value) { int bits; std::memcpy(&bits, &value, 4); return bits; }
inline unsigned __float_as_uint(float value) { unsigned bits; std::memcpy(&bits, &value, 4); return bits; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fsqrt_rn(float a) { return std::sqrt(a); }
inline float __fmaf_rn(float a, float b, float c) { return std::fmaf(a, b, c); }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dmul_rn(double a, double b) { return a * b; }
template <class T>
T __ldg(const T* at) { return *at; }
