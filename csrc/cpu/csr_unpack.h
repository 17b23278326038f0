// The dense rows [begin, end) of a CSR weight, in the dtype of its values.
#pragma once
#include "csr.h"

namespace prism::cpu {

using CsrUnpackFn = void (*)(const CsrRows& w, int64_t begin, int64_t end, void* dense);  // dense [n, k]
namespace generic { void CsrUnpack(const CsrRows&, int64_t, int64_t, void*); }

CsrUnpackFn PickCsrUnpack();

}  // namespace prism::cpu
