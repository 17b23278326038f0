#include "bitmap_dual_shift_dequantize.h"

#include "isa.h"

namespace prism::cpu {
namespace generic {

void DecodeBitmapDualShiftRow(const BitmapDualShift& w, int64_t row, float* out) {
  std::fill_n(out, NumBlocks(w.k) * kBlock, 0.0f);
  const uint8_t* bitmap = w.RowBitmap(row);
  RowCodes codes(w, row);
  int64_t group = -1, group_end = 0;
  int zero = 0;
  float scale = 0.0f;
  for (int64_t begin = 0; begin < w.k; begin += kBlock, bitmap += 8) {
    uint64_t mask = LoadMask(bitmap);
    uint8_t block[kBlock];
    codes.NextBlock(std::popcount(mask), block);
    for (int i = 0; mask != 0; mask &= mask - 1, ++i) {
      const int64_t j = begin + std::countr_zero(mask);
      if (j >= w.k) break;  // bits past k are 0 in a valid bitmap
      if (j >= group_end) {
        group = j / w.group_size;
        group_end = (group + 1) * w.group_size;
        scale = BFloat16ToFloat(w.RowScale(row)[group]);
        if (w.levels == nullptr) zero = static_cast<int>(CodeAt(w.RowZero(row), group, w.bits));
      }
      out[j] = (w.levels == nullptr ? static_cast<float>(block[i] - zero) : w.levels[block[i]]) * scale;
    }
  }
}

void BitmapDualShiftDequantize(const BitmapDualShift& w, const uint16_t* column_scale, int64_t row_begin,
                               int64_t row_end, DType dtype, void* out) {
  std::vector<float> weight(static_cast<size_t>(NumBlocks(w.k) * kBlock));
  for (int64_t row = row_begin; row < row_end; ++row) {
    DecodeBitmapDualShiftRow(w, row, weight.data());
    for (int64_t j = 0; j < w.k; ++j) {
      StoreFloat(weight[j] * BFloat16ToFloat(column_scale[j]), out, dtype, row * w.k + j);
    }
  }
}

}  // namespace generic

BitmapDualShiftDequantizeFn PickBitmapDualShiftDequantize() {
#if PRISM_X86
  return Pick<BitmapDualShiftDequantizeFn>("bitmap_dual_shift_dequantize",
                                           {generic::BitmapDualShiftDequantize, avx2::BitmapDualShiftDequantize,
                                            avx512::BitmapDualShiftDequantize, nullptr});
#else
  return Pick<BitmapDualShiftDequantizeFn>("bitmap_dual_shift_dequantize", {generic::BitmapDualShiftDequantize});
#endif
}

}  // namespace prism::cpu
