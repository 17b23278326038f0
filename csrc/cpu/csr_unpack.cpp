// Bound by its scattered stores; vector instructions have nothing to add.
#include "csr_unpack.h"

#include <cstring>

#include "isa.h"

namespace prism::cpu {
namespace generic {
namespace {

template <class T>
void UnpackRows(const CsrRows& w, int64_t begin, int64_t end, T* dense) {
  const T* values = static_cast<const T*>(w.values);
  for (int64_t row = begin; row < end; ++row) {
    T* out = dense + row * w.k;
    std::memset(out, 0, static_cast<size_t>(w.k) * sizeof(T));
    for (int64_t i = w.Offset(row); i < w.Offset(row + 1); ++i) out[w.Column(i)] = values[i];
  }
}

}  // namespace

void CsrUnpack(const CsrRows& w, int64_t begin, int64_t end, void* dense) {
  if (w.k == 0) return;
  if (w.dtype == DType::kFloat32) return UnpackRows(w, begin, end, static_cast<uint32_t*>(dense));
  UnpackRows(w, begin, end, static_cast<uint16_t*>(dense));
}

}  // namespace generic

CsrUnpackFn PickCsrUnpack() { return Pick<CsrUnpackFn>("csr_unpack", {generic::CsrUnpack}); }

}  // namespace prism::cpu
