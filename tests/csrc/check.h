// The little that the C++ tests need: exact-size heap buffers (AddressSanitizer sees one byte too many), deterministic
// numbers, a check that names what failed, and a loop over the instruction sets of this CPU.
#pragma once
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "cpu/isa.h"

#define PRISM_CHECK(condition, ...)                                                \
  do {                                                                             \
    if (!(condition)) {                                                            \
      std::fprintf(stderr, "%s:%d: %s failed: ", __FILE__, __LINE__, #condition);  \
      std::fprintf(stderr, __VA_ARGS__);                                           \
      std::fprintf(stderr, " (isa %s)\n", prism::cpu::IsaName(prism::cpu::ActiveIsa())); \
      std::exit(1);                                                                \
    }                                                                              \
  } while (false)

namespace prism::test {

// A heap block of exactly count * sizeof(T) bytes; std::vector may round its capacity up.
template <class T>
class Buffer {
 public:
  explicit Buffer(int64_t count) : data_(new T[static_cast<size_t>(count)]), count_(count) {}
  T* data() { return data_.get(); }
  T& operator[](int64_t i) { return data_[static_cast<size_t>(i)]; }
  int64_t size() const { return count_; }

 private:
  std::unique_ptr<T[]> data_;
  int64_t count_;
};

inline std::mt19937& Random() {
  static std::mt19937 random(20260101);
  return random;
}

inline int64_t RandomInt(int64_t low, int64_t high) { return std::uniform_int_distribution<int64_t>(low, high)(Random()); }
inline float RandomNormal() { return std::normal_distribution<float>()(Random()); }

// Runs `body` under every supported instruction set and proves that the forced one is active.
inline void ForEachIsa(const std::function<void()>& body) {
  for (const auto isa : {cpu::Isa::kGeneric, cpu::Isa::kAvx2, cpu::Isa::kAvx512, cpu::Isa::kAvx512Bf16}) {
    if (!cpu::IsaSupported(isa)) continue;
    cpu::ForceIsa(cpu::IsaName(isa));
    PRISM_CHECK(cpu::ActiveIsa() == isa, "forced isa is not active");
    body();
    std::printf("ok: %s, last kernel %s\n", cpu::IsaName(isa), cpu::LastKernel().c_str());
  }
}

}  // namespace prism::test
