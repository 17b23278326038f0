#include "../../cuda/bitmap_linear.cuh"

#include "bitmap_common.h"

namespace prism {

Tensor BitmapLinearCuda(const Tensor& x, const Tensor& bitmap, const Tensor& values, const Tensor& panel_offsets,
                        const std::optional<Tensor>& bias, int64_t n) {
  constexpr const char* kOp = "bitmap_linear";
  cuda::BitmapLinearArgs args;
  args.x_dtype = FloatDType(x, kOp, "x");
  args.values_dtype = FloatDType(values, kOp, "values");
  STD_TORCH_CHECK(x.dim() == 2, kOp, ": needs x [m, k]");
  args.m = x.size(0);
  args.n = n;
  args.k = x.size(1);
  CheckBitmapOnDevice(bitmap, panel_offsets, x, n, args.k, cpu::kPairColumns, kOp);
  CheckOnDevice(values, x, kOp, "values");
  CheckBiasOnDevice(bias, x, n, kOp);
  const CurrentStream current(x);
  Tensor y = torch::stable::new_empty(x, {args.m, n});
  if (args.m == 0 || n == 0) return y;
  if (args.k == 0) return BiasOnly(y, bias, current, kOp);
  args.x = x.const_data_ptr();
  args.bitmap = ConstData<uint8_t>(bitmap);
  args.values = values.const_data_ptr();
  args.panel_offsets = ConstData<int64_t>(panel_offsets);
  args.bias = bias.has_value() ? bias->const_data_ptr() : nullptr;
  args.size = values.numel();
  args.y = y.mutable_data_ptr();
  Tensor scratch = torch::stable::new_empty(x, {cuda::BitmapLinearScratchBytes(args)}, ScalarType::Byte);
  args.scratch = scratch.mutable_data_ptr();
  CheckLaunch(cuda::BitmapLinear(args, current.stream), kOp);
  return y;
}

}  // namespace prism

STABLE_TORCH_LIBRARY_IMPL(prism, CUDA, m) { m.impl("bitmap_linear", TORCH_BOX(&prism::BitmapLinearCuda)); }
