#include "../../cpu/bitmap_unpack.h"

#include "bitmap_common.h"

namespace prism {

Tensor BitmapUnpackCpu(const Tensor& bitmap, const Tensor& values, const Tensor& row_offsets, int64_t k) {
  const cpu::BitmapValues weight = CheckBitmapValues(bitmap, values, row_offsets, k, "bitmap_unpack");
  const int64_t n = bitmap.size(0);
  Tensor out = torch::stable::new_empty(values, {n, k});
  void* data = out.mutable_data_ptr();
  const auto kernel = cpu::PickBitmapUnpack();
  const int64_t grain = std::max<int64_t>(1, 65536 / std::max<int64_t>(k, 1));
  torch::stable::parallel_for(0, n, grain, [&](int64_t begin, int64_t end) {
    kernel(weight, begin, end, data);
  });
  return out;
}

}  // namespace prism

STABLE_TORCH_LIBRARY_IMPL(prism, CPU, m) { m.impl("bitmap_unpack", TORCH_BOX(&prism::BitmapUnpackCpu)); }
