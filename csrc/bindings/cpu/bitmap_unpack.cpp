#include "../../cpu/bitmap_unpack.h"

#include "bitmap_common.h"

namespace prism {

Tensor BitmapUnpackCpu(const Tensor& bitmap, const Tensor& values, const Tensor& panel_offsets, int64_t n, int64_t k) {
  constexpr const char* kOp = "bitmap_unpack";
  cpu::BitmapUnpackArgs args;
  args.element_bytes = DTypeBytes(FloatDType(values, kOp, "values"));
  args.n = n;
  args.k = k;
  args.size = values.numel();
  CheckBitmap(bitmap, n, k, cpu::kPairColumns, kOp);
  CheckPanelOffsets(panel_offsets, NumPanels(n), args.size, kOp);
  args.bitmap = ConstData<uint8_t>(bitmap);
  args.values = values.const_data_ptr();
  args.panel_offsets = ConstData<int64_t>(panel_offsets);
  Tensor weight = torch::stable::new_empty(values, {n, k});
  args.weight = weight.mutable_data_ptr();
  const cpu::BitmapUnpackFn kernel = cpu::PickBitmapUnpack();
  torch::stable::parallel_for(0, NumPanels(n), PanelGrain(k),
                              [&](int64_t begin, int64_t end) { kernel(args, begin, end); });
  return weight;
}

}  // namespace prism

STABLE_TORCH_LIBRARY_IMPL(prism, CPU, m) { m.impl("bitmap_unpack", TORCH_BOX(&prism::BitmapUnpackCpu)); }
