#include "isa.h"

#include <atomic>
#include <cstdlib>
#include <stdexcept>

namespace prism::cpu {
namespace {

constexpr Isa kAll[kNumIsas] = {Isa::kGeneric, Isa::kAvx2, Isa::kAvx512, Isa::kAvx512Bf16};

Isa Best() {
  Isa best = Isa::kGeneric;
  for (const Isa isa : kAll) {
    if (!IsaSupported(isa)) break;  // each level contains the one below
    best = isa;
  }
  return best;
}

Isa Parse(const char* source, const std::string& name) {
  for (const Isa isa : kAll) {
    if (name != IsaName(isa)) continue;
    if (!IsaSupported(isa)) throw std::runtime_error(std::string(source) + "=" + name + " is not supported by this CPU");
    return isa;
  }
  throw std::runtime_error(std::string(source) + " must be generic, avx2, avx512 or avx512_bf16, got '" + name + "'");
}

Isa Detect() {
  const char* name = std::getenv("PRISM_CPU_ISA");
  return name != nullptr && *name != '\0' ? Parse("PRISM_CPU_ISA", name) : Best();
}

std::atomic<Isa>& Active() {
  static std::atomic<Isa> isa{Detect()};
  return isa;
}

std::string& LastKernelSlot() {
  thread_local std::string last;
  return last;
}

}  // namespace

const char* IsaName(Isa isa) {
  switch (isa) {
    case Isa::kAvx512Bf16: return "avx512_bf16";
    case Isa::kAvx512: return "avx512";
    case Isa::kAvx2: return "avx2";
    default: return "generic";
  }
}

bool IsaSupported(Isa isa) {
#if PRISM_X86
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c") &&
                    __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("popcnt");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512vbmi2") &&
                      __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bitalg") &&
                      __builtin_cpu_supports("avx512vpopcntdq");
  switch (isa) {
    case Isa::kAvx512Bf16: return avx512 && __builtin_cpu_supports("avx512bf16");
    case Isa::kAvx512: return avx512;
    case Isa::kAvx2: return avx2;
    default: return true;
  }
#else
  return isa == Isa::kGeneric;
#endif
}

Isa ActiveIsa() { return Active().load(std::memory_order_relaxed); }

void ForceIsa(const std::string& name) {
  Active().store(name == "auto" ? Detect() : Parse("force_isa: name", name), std::memory_order_relaxed);
}

const std::string& LastKernel() { return LastKernelSlot(); }

void RecordKernel(const char* op, Isa isa) {
  std::string& last = LastKernelSlot();
  last.assign(op);
  last += ':';
  last += IsaName(isa);
}

}  // namespace prism::cpu
