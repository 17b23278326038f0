// Every instruction that C++ has no word for, and nothing else: inline PTX here, the same contracts on the CPU in
// tests/csrc/emulator/ptx.h. Fragment layouts are those of the PTX ISA, "mma.m16n8k16": with g = lane / 4, t = lane % 4,
//   a = {(g, 2t..2t+1), (g + 8, 2t..), (g, 2t + 8..), (g + 8, 2t + 8..)}   [16, 16], row by row
//   b = {(2t..2t+1, g), (2t + 8.., g)}                                     [16, 8], column by column
//   d = {(g, 2t), (g, 2t + 1), (g + 8, 2t), (g + 8, 2t + 1)}               [16, 8] float32
#pragma once
#include "launch.cuh"

#ifdef PRISM_CUDA_EMULATOR
#include "ptx.h"
#else

namespace prism::cuda {

// ---- tensor cores -------------------------------------------------------------------------------------------------------
__device__ inline void MmaBf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

__device__ inline void MmaFp16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// Bytes, summed exactly: a [16, 32] unsigned, b [32, 8] signed; with four neighbours of k to a register,
//   a = {(g, 4t..4t+3), (g + 8, 4t..), (g, 4t + 16..), (g + 8, 4t + 16..)}, b = {(4t.., g), (4t + 16.., g)}, d as above in int32
__device__ inline void MmaU8S8(int (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// A sparse [16, 32] times b [32, 8]. Of every 4 neighbours of a row of A, a quad, two are stored; with quads numbered 0 to 7
// along the row,
//   a = {(g, quad t), (g + 8, quad t), (g, quad t + 4), (g + 8, quad t + 4)}          each a pair, lower column in the low half
//   b = {(2t..2t+1, g), (2t + 8.., g), (2t + 16.., g), (2t + 24.., g)}                [32, 8], column by column
// and d as above. Two lanes of each four (g) hold the columns: lanes t = 0 and 1 where the selector is 0, t = 2 and 3 where it
// is 1; the other two are not read. The lower of the two holds quads 0 to 3, the upper quads 4 to 7: quad q of row g in bits
// 4 * (q % 4).., of row g + 8 in bits 16 + 4 * (q % 4)..; 2 bits for the column of the low half, then 2 for that of the high
// half, which must be the larger ("ordered metadata"). PTX ISA, "sparse mma.m16n8k32 with .f16 and .bf16 types" and "sparse
// matrix storage"; torch's conversion to CUTLASS's metadata, where word 4 * g + t belongs to lane 4 * g + t, says the same.
template <int kSelector>
__device__ inline void MmaSparseBf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[4], uint32_t columns) {
  static_assert(kSelector == 0 || kSelector == 1);
  asm volatile(
      "mma.sp::ordered_metadata.sync.aligned.m16n8k32.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
      "{%8,%9,%10,%11}, {%0,%1,%2,%3}, %12, %13;"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "r"(b[2]), "r"(b[3]), "r"(columns),
        "n"(kSelector));
}

template <int kSelector>
__device__ inline void MmaSparseFp16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[4], uint32_t columns) {
  static_assert(kSelector == 0 || kSelector == 1);
  asm volatile(
      "mma.sp::ordered_metadata.sync.aligned.m16n8k32.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
      "{%8,%9,%10,%11}, {%0,%1,%2,%3}, %12, %13;"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "r"(b[2]), "r"(b[3]), "r"(columns),
        "n"(kSelector));
}

// Four 8x8 matrices of 16-bit values; lane i gives the address (16-byte aligned, in shared memory) of row i % 8 of matrix
// i / 8, and gets (lane / 4, 2 * (lane % 4)..) of matrix j in r[j].
__device__ inline void LoadMatrix4(uint32_t (&r)[4], const void* shared_row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(static_cast<uint32_t>(__cvta_generic_to_shared(shared_row)))
               : "memory");
}

// ---- shared memory ----------------------------------------------------------------------------------------------------
// An address of shared memory that the compiler takes as it is: from a pointer it derives the start of dynamic shared memory
// anew for every scattered store, by a slow read of a special register (sm_90).
using SharedAddress = uint32_t;
__device__ inline SharedAddress ToShared(const void* at) {
  SharedAddress address;
  asm volatile("mov.b32 %0, %1;" : "=r"(address) : "r"(static_cast<uint32_t>(__cvta_generic_to_shared(at))));
  return address;
}

// Stores 2 bytes, `offset` bytes behind `at`.
__device__ inline void StoreShared2(SharedAddress at, uint32_t offset, uint16_t value) {
  asm volatile("st.shared.b16 [%0], %1;" ::"r"(at + offset), "h"(value) : "memory");
}

// ---- asynchronous copies from global to shared memory ---------------------------------------------------------------------
// 16 bytes, both addresses aligned to 16; only the first `bytes` (0 to 16) are read, the rest becomes 0.
__device__ inline void CopyAsync16(void* shared, const void* global, int bytes = 16) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(static_cast<uint32_t>(__cvta_generic_to_shared(shared))),
               "l"(global), "r"(bytes)
               : "memory");
}

// Closes the group of copies that this thread began since the last call.
__device__ inline void CopyAsyncCommit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits until at most kGroups of this thread's newest groups are under way; other threads see the data after a barrier.
template <int kGroups>
__device__ inline void CopyAsyncWait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kGroups) : "memory");
}

// ---- global memory --------------------------------------------------------------------------------------------------------
// 16 bytes that this launch reads once: past the first-level cache.
__device__ inline uint4 LoadOnce16(const void* at) {
  uint4 value;
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];"
               : "=r"(value.x), "=r"(value.y), "=r"(value.z), "=r"(value.w)
               : "l"(at));
  return value;
}

// 8 bytes, as above.
__device__ inline uint2 LoadOnce8(const void* at) {
  uint2 value;
  asm volatile("ld.global.nc.L1::no_allocate.v2.u32 {%0,%1}, [%2];" : "=r"(value.x), "=r"(value.y) : "l"(at));
  return value;
}

// One store of 16 bytes: the compiler splits some assignments of a uint4 into four.
__device__ inline void Store16(void* at, uint4 value) {
  asm volatile("st.global.v4.u32 [%0], {%1,%2,%3,%4};" ::"l"(at), "r"(value.x), "r"(value.y), "r"(value.z), "r"(value.w)
               : "memory");
}

// Asks for the 128 bytes around `at` in the second-level cache.
__device__ inline void PrefetchL2(const void* at) { asm volatile("prefetch.global.L2 [%0];" ::"l"(at)); }

// ---- bytes and bits --------------------------------------------------------------------------------------------------------
// Byte i is the one of (a, b) that nibble i of `selectors` counts, 0 to 7; 8 + j repeats the sign of byte j: 0 or 255. What
// lies above the 4 nibbles is ignored. The intrinsic __byte_perm masks its selectors first.
__device__ inline uint32_t Permute(uint32_t a, uint32_t b, uint32_t selectors) {
  uint32_t bytes;
  asm("prmt.b32 %0, %1, %2, %3;" : "=r"(bytes) : "r"(a), "r"(b), "r"(selectors));
  return bytes;
}

// a & mask | bits in one instruction, with constants in registers: as an expression of two constants it takes two.
__device__ inline uint32_t AndOr(uint32_t a, uint32_t mask, uint32_t bits) {
  uint32_t result;
  asm("lop3.b32 %0, %1, %2, %3, 0xEA;" : "=r"(result) : "r"(a), "r"(mask), "r"(bits));
  return result;
}

// ---- lanes of a warp ---------------------------------------------------------------------------------------------------------
// value + that of the lane `lanes` below; value where there is none. Two instructions: the shuffle says whether there is.
__device__ inline int AddFromBelow(int value, int lanes) {
  int sum;
  asm volatile(
      "{.reg .s32 below; .reg .pred there; shfl.sync.up.b32 below|there, %1, %2, 0, 0xffffffff; "
      "@there add.s32 below, below, %1; mov.b32 %0, below;}"
      : "=r"(sum)
      : "r"(value), "r"(lanes));
  return sum;
}

// The sum of all lanes' values, in one instruction.
__device__ inline int AddUpWarp(int value) {
  int sum;
  asm volatile("redux.sync.add.s32 %0, %1, 0xffffffff;" : "=r"(sum) : "r"(value));
  return sum;
}

// ---- pairs of 16-bit floats, low half first -------------------------------------------------------------------------------
__device__ inline uint32_t PackBf16(float low, float high) {
  uint32_t pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
}

__device__ inline uint32_t PackFp16(float low, float high) {
  uint32_t pair;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
}

__device__ inline float2 UnpackFp16(uint32_t pair) {
  float2 values;
  asm("{.reg .b16 low, high; mov.b32 {low, high}, %2; cvt.f32.f16 %0, low; cvt.f32.f16 %1, high;}"
      : "=f"(values.x), "=f"(values.y)
      : "r"(pair));
  return values;
}

// a * b + c of each half, rounded once.
__device__ inline uint32_t FmaBf16(uint32_t a, uint32_t b, uint32_t c) {
  uint32_t d;
  asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
  return d;
}

__device__ inline uint32_t FmaFp16(uint32_t a, uint32_t b, uint32_t c) {
  uint32_t d;
  asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
  return d;
}

}  // namespace prism::cuda
#endif
