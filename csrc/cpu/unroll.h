// Loops over compile-time indices, so that small arrays of registers never become memory.
#pragma once
#include <type_traits>
#include <utility>

// On lambdas that must be inlined wherever they are called.
#define PRISM_INLINE __attribute__((always_inline))

// Unroll<kCount>(body) calls body(0), ..., body(kCount - 1). A macro, because the function must be compiled for the
// instruction set of the body: expand it once inside each namespace that uses it.
#define PRISM_DEFINE_UNROLL                                                      \
  template <int kCount, class Body>                                              \
  inline PRISM_INLINE void Unroll(Body body) {                                   \
    [&]<int... kIndex>(std::integer_sequence<int, kIndex...>) PRISM_INLINE {     \
      (body(std::integral_constant<int, kIndex>()), ...);                        \
    }(std::make_integer_sequence<int, kCount>());                                \
  }
