#include "../../cuda/sparse24_pack.cuh"

#include "sparse24_common.h"

namespace prism {

std::tuple<Tensor, Tensor> Sparse24PackCuda(const Tensor& weight, const Tensor& mask) {
  constexpr const char* kOp = "sparse24_pack";
  STD_TORCH_CHECK(weight.dim() == 2 && weight.is_contiguous(), kOp, ": needs a contiguous weight [n, k]");
  const int64_t n = weight.size(0), k = weight.size(1), panels = NumPanels(n), tiles = NumSparseTiles(k);
  CheckTensor(mask, ScalarType::Bool, kOp, "mask");
  CheckNumel(mask, n * k, kOp, "mask");
  const CurrentStream current(weight);
  Tensor columns = torch::stable::new_empty(weight, {panels, tiles, 32}, ScalarType::Int);
  auto* const columns_data = MutableData<uint32_t>(columns);
  if (weight.scalar_type() == ScalarType::Byte) {
    Tensor words = torch::stable::new_empty(weight, {panels, tiles, 32, 2}, ScalarType::Int);
    CheckLaunch(cuda::Sparse24PackCodes(ConstData<uint8_t>(weight), ConstData<bool>(mask), n, k,
                                        MutableData<uint32_t>(words), columns_data, current.stream), kOp);
    return {words, columns};
  }
  FloatDType(weight, kOp, "weight");
  STD_TORCH_CHECK(weight.element_size() == 2, kOp, ": weight must be 16-bit floats or codes");
  Tensor values = torch::stable::new_empty(weight, {panels, tiles, 2, 32, 8});
  CheckLaunch(cuda::Sparse24Pack(ConstData<uint16_t>(weight), ConstData<bool>(mask), n, k, MutableData<uint16_t>(values),
                                 columns_data, current.stream), kOp);
  return {values, columns};
}

Tensor Sparse24UnpackCuda(const Tensor& packed, const Tensor& columns, int64_t n, int64_t k) {
  constexpr const char* kOp = "sparse24_unpack";
  const bool codes = packed.scalar_type() == ScalarType::Int;
  CheckSparse24(packed, columns, n, k, codes, kOp);
  const CurrentStream current(packed);
  Tensor weight = torch::stable::new_empty(packed, {n, k}, codes ? ScalarType::Byte : packed.scalar_type());
  const auto* columns_data = ConstData<uint32_t>(columns);
  if (codes) {
    CheckLaunch(cuda::Sparse24UnpackCodes(ConstData<uint32_t>(packed), columns_data, n, k, MutableData<uint8_t>(weight),
                                          current.stream), kOp);
  } else {
    CheckLaunch(cuda::Sparse24Unpack(ConstData<uint16_t>(packed), columns_data, n, k, MutableData<uint16_t>(weight),
                                     current.stream), kOp);
  }
  return weight;
}

}  // namespace prism

STABLE_TORCH_LIBRARY_IMPL(prism, CUDA, m) {
  m.impl("sparse24_pack", TORCH_BOX(&prism::Sparse24PackCuda));
  m.impl("sparse24_unpack", TORCH_BOX(&prism::Sparse24UnpackCuda));
}
