// What the bindings of the quantized ops share: the memory-safety checks of a grid, and codebook names.
#pragma once
#include "../../common/codebooks.h"
#include "../../common/panels.h"
#include "../common.h"

#include <vector>

namespace prism {

// bfloat16 [k] as float32, followed by `margin` ones that vectors may read.
inline std::vector<float> ToFloats(const Tensor& bfloat16, int64_t margin = 0) {
  std::vector<float> values(static_cast<size_t>(bfloat16.numel() + margin), 1.0f);
  const uint16_t* bits = ConstData<uint16_t>(bfloat16);
  for (int64_t i = 0; i < bfloat16.numel(); ++i) values[static_cast<size_t>(i)] = BFloat16ToFloat(bits[i]);
  return values;
}

// Rows per task, so that a task is worth a thread.
inline int64_t RowGrain(int64_t work_per_row) { return 1 + 65536 / (work_per_row + 1); }

inline Codebook ParseCodebook(const std::string& name, int64_t bits, const char* op) {
  const Codebook codebook = name == "nf4" ? Codebook::kNf4 : name == "nf3" ? Codebook::kNf3 : Codebook::kUniform;
  STD_TORCH_CHECK(codebook != Codebook::kUniform || name == "uniform", op, ": unknown codebook ", name);
  STD_TORCH_CHECK(IsCodeWidth(bits), op, ": bits must be 2, 3, 4, 5, 6 or 8, got ", bits);
  STD_TORCH_CHECK(codebook == Codebook::kUniform || int64_t{1} << bits == CodebookSize(codebook), op, ": bits ", bits,
                  " do not fit codebook ", name);
  return codebook;
}

// scale bf16 [panels, groups, 16], zero u8 [panels, groups, ZeroBytes(bits)] (none where the codebook has none).
inline void CheckPanelGrid(const Tensor& scale, const Tensor& zero, int64_t panels, int64_t groups, int bits,
                           Codebook codebook, const char* op) {
  CheckTensor(scale, ScalarType::BFloat16, op, "scale");
  CheckNumel(scale, panels * groups * kPanelRows, op, "scale");
  CheckTensor(zero, ScalarType::Byte, op, "zero");
  CheckNumel(zero, codebook == Codebook::kUniform ? panels * groups * ZeroBytes(bits) : 0, op, "zero");
}

}  // namespace prism
