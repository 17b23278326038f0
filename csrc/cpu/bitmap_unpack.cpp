#include "bitmap_unpack.h"

#include "isa.h"

namespace prism::cpu {
namespace generic {
namespace {

template <class T>
void Unpack(const BitmapValues& w, int64_t row_begin, int64_t row_end, T* out) {
  const T* values = static_cast<const T*>(w.values);
  for (int64_t row = row_begin; row < row_end; ++row) {
    T* row_out = out + row * w.k;
    std::fill_n(row_out, w.k, T{0});
    ForEachKept(w, row, [&](int64_t j, int64_t i) { row_out[j] = values[i]; });
  }
}

}  // namespace

void BitmapUnpack(const BitmapValues& w, int64_t row_begin, int64_t row_end, void* out) {
  if (w.ElementBytes() == 2) return Unpack(w, row_begin, row_end, static_cast<uint16_t*>(out));
  Unpack(w, row_begin, row_end, static_cast<uint32_t*>(out));
}

}  // namespace generic

BitmapUnpackFn PickBitmapUnpack() {
#if PRISM_X86
  return Pick<BitmapUnpackFn>("bitmap_unpack",
                              {generic::BitmapUnpack, avx2::BitmapUnpack, avx512::BitmapUnpack, nullptr});
#else
  return Pick<BitmapUnpackFn>("bitmap_unpack", {generic::BitmapUnpack});
#endif
}

}  // namespace prism::cpu
