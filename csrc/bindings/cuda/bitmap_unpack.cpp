#include "../../cuda/bitmap_unpack.cuh"

#include "bitmap_common.h"

namespace prism {

Tensor BitmapUnpackCuda(const Tensor& bitmap, const Tensor& values, const Tensor& panel_offsets, int64_t n, int64_t k) {
  constexpr const char* kOp = "bitmap_unpack";
  cuda::BitmapUnpackArgs args;
  args.element_bytes = DTypeBytes(FloatDType(values, kOp, "values"));
  CheckBitmapOnDevice(bitmap, panel_offsets, values, n, k, cpu::kPairColumns, kOp);
  args.bitmap = ConstData<uint8_t>(bitmap);
  args.values = values.const_data_ptr();
  args.panel_offsets = ConstData<int64_t>(panel_offsets);
  args.size = values.numel();
  args.n = n;
  args.k = k;
  const CurrentStream current(values);
  Tensor weight = torch::stable::new_empty(values, {n, k});
  args.weight = weight.mutable_data_ptr();
  CheckLaunch(cuda::BitmapUnpack(args, current.stream), kOp);
  return weight;
}

}  // namespace prism

STABLE_TORCH_LIBRARY_IMPL(prism, CUDA, m) { m.impl("bitmap_unpack", TORCH_BOX(&prism::BitmapUnpackCuda)); }
