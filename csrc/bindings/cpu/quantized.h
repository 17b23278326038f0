// What the bindings of the quantized ops share: the memory-safety checks of a grid, and codebook names.
#pragma once
#include "../../common/codebooks.h"
#include "../common.h"

namespace prism {

inline Codebook ParseCodebook(const std::string& name, int64_t bits, const char* op) {
  const Codebook codebook = name == "nf4" ? Codebook::kNf4 : name == "nf3" ? Codebook::kNf3 : Codebook::kUniform;
  STD_TORCH_CHECK(codebook != Codebook::kUniform || name == "uniform", op, ": unknown codebook ", name);
  STD_TORCH_CHECK(IsCodeWidth(bits), op, ": bits must be 2, 3, 4, 5, 6 or 8, got ", bits);
  STD_TORCH_CHECK(codebook == Codebook::kUniform || int64_t{1} << bits == CodebookSize(codebook), op, ": bits ", bits,
                  " do not fit codebook ", name);
  return codebook;
}

// scale bf16 [n, groups], zero u8 [n, packed groups] (no bytes where the codebook has no zero points).
inline void CheckGrid(const Tensor& scale, const Tensor& zero, int64_t n, int64_t groups, int64_t bits, Codebook codebook,
                      const char* op) {
  CheckTensor(scale, ScalarType::BFloat16, op, "scale");
  CheckNumel(scale, n * groups, op, "scale");
  CheckTensor(zero, ScalarType::Byte, op, "zero");
  CheckNumel(zero, codebook == Codebook::kUniform ? n * PackedBytes(groups, bits) : 0, op, "zero");
}

}  // namespace prism
