// Run-time choice of instruction set. Every kernel exists in up to four namespaces (generic, avx2, avx512, avx512_bf16);
// one table per op names them, Pick() takes the best one that this CPU (or PRISM_CPU_ISA) allows and records what it took.
#pragma once
#include <cstdint>
#include <string>

// Target regions compile one namespace for one instruction set without -m flags, so that inline functions of the
// standard library are never built with AVX-512 and handed by the linker to every caller.
#define PRISM_PRAGMA(x) _Pragma(#x)
#if defined(__clang__)
#define PRISM_TARGET_BEGIN(isa) PRISM_PRAGMA(clang attribute push(__attribute__((target(isa))), apply_to = function))
#define PRISM_TARGET_END _Pragma("clang attribute pop")
#else
#define PRISM_TARGET_BEGIN(isa) _Pragma("GCC push_options") PRISM_PRAGMA(GCC target(isa))
#define PRISM_TARGET_END _Pragma("GCC pop_options")
#endif

#if defined(__x86_64__) || defined(_M_X64)
#define PRISM_X86 1
#else
#define PRISM_X86 0
#endif

#define PRISM_TARGET_AVX2 "avx2,fma,f16c,bmi,bmi2,popcnt,lzcnt"
// "avx512" means Ice Lake or later; Skylake-X and Cascade Lake lack VBMI2 and run the AVX2 kernels.
#define PRISM_TARGET_AVX512 \
  "avx2,fma,f16c,bmi,bmi2,popcnt,lzcnt,avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vbmi2,avx512vnni,avx512bitalg,avx512vpopcntdq"
#define PRISM_TARGET_AVX512_BF16 PRISM_TARGET_AVX512 ",avx512bf16"

namespace prism::cpu {

enum class Isa { kGeneric = 0, kAvx2 = 1, kAvx512 = 2, kAvx512Bf16 = 3 };
inline constexpr int kNumIsas = 4;

const char* IsaName(Isa isa);
bool IsaSupported(Isa isa);  // by this CPU and operating system

// Detected once; PRISM_CPU_ISA overrides. Throws std::runtime_error for an unknown or unsupported name.
Isa ActiveIsa();
// Replaces the active ISA for the whole process (tests and benchmarks). "auto" restores what was detected.
void ForceIsa(const std::string& name);

// "op:isa" of the last kernel picked on this thread, "" before the first.
const std::string& LastKernel();
void RecordKernel(const char* op, Isa isa);

// The variants of one op, best last; nullptr where an ISA has no kernel of its own. `generic` is never null.
template <class Fn>
struct KernelTable {
  Fn generic = nullptr;
  Fn avx2 = nullptr;
  Fn avx512 = nullptr;
  Fn avx512_bf16 = nullptr;
};

template <class Fn>
Fn Pick(const char* op, const KernelTable<Fn>& table) {
  const Fn variants[kNumIsas] = {table.generic, table.avx2, table.avx512, table.avx512_bf16};
  int isa = static_cast<int>(ActiveIsa());
  while (variants[isa] == nullptr) --isa;
  RecordKernel(op, static_cast<Isa>(isa));
  return variants[isa];
}

}  // namespace prism::cpu
