#include "../../cuda/dual_shift_linear.cuh"

#include "../../cuda/quantize_activations.cuh"
#include "dual_shift_common.h"

namespace prism {

Tensor DualShiftLinearCuda(const Tensor& x, const Tensor& codes, const Tensor& scale, const Tensor& zero,
                           const Tensor& column_scale, const std::optional<Tensor>& bias, int64_t n, int64_t bits,
                           int64_t group_size, std::string codebook, std::optional<int64_t> activation_bits) {
  constexpr const char* kOp = "dual_shift_linear";
  cuda::DualShiftLinearArgs args;
  args.y_dtype = args.x_dtype = FloatDType(x, kOp, "x");
  args.codebook = ParseCodebook(codebook, bits, kOp);
  STD_TORCH_CHECK(x.dim() == 2, kOp, ": needs x [m, k]");
  args.m = x.size(0), args.n = n, args.k = x.size(1);
  CheckDualShift(codes, scale, zero, column_scale, x, n, args.k, bits, group_size, args.codebook, kOp);
  if (bias.has_value()) {
    CheckTensor(*bias, x.scalar_type(), kOp, "bias");
    CheckNumel(*bias, n, kOp, "bias");
    CheckPlaced(*bias, x, 1, kOp, "bias");
    args.bias = bias->const_data_ptr();
  }
  const CurrentStream current(x);
  Tensor y = torch::stable::new_empty(x, {args.m, n});
  if (args.m == 0 || n == 0) return y;
  args.codes = ConstData<uint8_t>(codes);
  args.scale = ConstData<uint16_t>(scale);
  args.zero = args.codebook == Codebook::kUniform ? ConstData<uint8_t>(zero) : nullptr;
  args.bits = static_cast<int>(bits);
  args.group_size = group_size;
  args.x = x.const_data_ptr();
  args.column_scale = ConstData<uint16_t>(column_scale);
  args.y = y.mutable_data_ptr();
  Tensor whole, token_scale;  // freed when the call returns: the stream that uses them is the one that may use them next
  if (activation_bits.has_value()) {
    STD_TORCH_CHECK(*activation_bits == 8, kOp, ": activation_bits must be 8 or None, got ", *activation_bits);
    STD_TORCH_CHECK(args.codebook == Codebook::kUniform, kOp, ": activation_bits needs the uniform codebook");
    whole = torch::stable::new_empty(x, {args.m, args.k}, ScalarType::BFloat16);
    token_scale = torch::stable::new_empty(x, {args.m}, ScalarType::Float);
    CheckLaunch(cuda::QuantizeActivations(args.x, args.x_dtype, args.column_scale, args.m, args.k,
                                          MutableData<uint16_t>(whole), MutableData<float>(token_scale), current.stream), kOp);
    args.x = whole.const_data_ptr(), args.x_dtype = DType::kBFloat16;
    args.column_scale = nullptr;
    args.token_scale = ConstData<float>(token_scale);
  }
  Tensor workspace;
  if (const int64_t floats = cuda::DualShiftLinearWorkspace(args); floats > 0) {
    workspace = torch::stable::new_empty(x, {floats}, ScalarType::Float);
    args.workspace = MutableData<float>(workspace);
  }
  CheckLaunch(cuda::DualShiftLinear(args, current.stream), kOp);
  return y;
}

}  // namespace prism

STABLE_TORCH_LIBRARY_IMPL(prism, CUDA, m) { m.impl("dual_shift_linear", TORCH_BOX(&prism::DualShiftLinearCuda)); }
