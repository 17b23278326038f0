#include "../../cpu/bitmap_dual_shift_dequantize.h"

#include "bitmap_common.h"

namespace prism {

Tensor BitmapDualShiftDequantizeCpu(const Tensor& bitmap, const Tensor& codes, const Tensor& row_offsets,
                                    const Tensor& scale, const Tensor& zero, const Tensor& column_scale, int64_t bits,
                                    int64_t group_size, std::string codebook, ScalarType dtype) {
  const char* op = "bitmap_dual_shift_dequantize";
  const cpu::BitmapDualShift weight = CheckBitmapDualShift(bitmap, codes, row_offsets, scale, zero, column_scale, bits,
                                                           group_size, codebook, op);
  const int64_t n = bitmap.size(0), k = weight.k;
  Tensor out = torch::stable::new_empty(scale, {n, k}, dtype);
  const DType out_dtype = FloatDType(out, op, "dtype");
  const uint16_t* columns = ConstData<uint16_t>(column_scale);
  void* data = out.mutable_data_ptr();
  const auto kernel = cpu::PickBitmapDualShiftDequantize();
  const int64_t grain = std::max<int64_t>(1, 65536 / std::max<int64_t>(k, 1));
  torch::stable::parallel_for(0, n, grain, [&](int64_t begin, int64_t end) {
    kernel(weight, columns, begin, end, out_dtype, data);
  });
  return out;
}

}  // namespace prism

STABLE_TORCH_LIBRARY_IMPL(prism, CPU, m) {
  m.impl("bitmap_dual_shift_dequantize", TORCH_BOX(&prism::BitmapDualShiftDequantizeCpu));
}
