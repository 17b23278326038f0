#include "../../cpu/dual_shift_linear.h"

#include <memory>
#include <new>
#include <vector>

#include "../../cpu/convert.h"
#include "quantized.h"

namespace prism {
namespace {

constexpr const char* kOp = "dual_shift_linear";

struct FreeAligned {
  void operator()(void* p) const { ::operator delete(p, std::align_val_t{64}); }
};

// Cache-line aligned, so that no vector of activations straddles two lines.
std::unique_ptr<void, FreeAligned> AllocateAligned(int64_t bytes) {
  return std::unique_ptr<void, FreeAligned>(::operator new(static_cast<size_t>(bytes), std::align_val_t{64}));
}

cpu::DualShiftLinearArgs CheckedArgs(const Tensor& x, const Tensor& codes, const Tensor& scale, const Tensor& zero,
                                     const Tensor& column_scale, int64_t bits, int64_t group_size,
                                     const std::string& codebook) {
  cpu::DualShiftLinearArgs args;
  args.codebook = ParseCodebook(codebook, bits, kOp);
  STD_TORCH_CHECK(x.dim() == 2 && codes.dim() == 2 && group_size >= 1, kOp,
                  ": needs x [m, k], codes [n, bytes], group_size >= 1");
  args.bits = static_cast<int>(bits);
  args.m = x.size(0);
  args.k = x.size(1);
  args.n = codes.size(0);
  args.code_bytes = PackedBytes(args.k, bits);
  args.group_size = group_size;
  args.groups = CeilDiv(args.k, group_size);
  args.zero_bytes = PackedBytes(args.groups, bits);
  CheckTensor(codes, ScalarType::Byte, kOp, "codes");
  CheckNumel(codes, args.n * args.code_bytes, kOp, "codes");
  CheckTensor(column_scale, ScalarType::BFloat16, kOp, "column_scale");
  CheckNumel(column_scale, args.k, kOp, "column_scale");
  CheckGrid(scale, zero, args.n, args.groups, bits, args.codebook, kOp);
  args.codes = ConstData<uint8_t>(codes);
  args.scale = ConstData<uint16_t>(scale);
  args.zero = ConstData<uint8_t>(zero);
  return args;
}

// Scales x by column, arranges it for the kernel and runs it into `sums` [m, n].
void RunKernel(cpu::DualShiftLinearArgs args, const void* x, DType dtype, const std::vector<float>& column_scale,
               float* sums) {
  const cpu::DualShiftLinearKernel& kernel = *cpu::PickDualShiftLinear(dtype, args.bits, args.group_size, args.k);
  const cpu::DualShiftLayout layout = cpu::LayoutFor(kernel, args.bits);
  args.blocks = CeilDiv(args.k, layout.BlockColumns());
  const int64_t token_bytes = args.blocks * layout.BlockColumns() * (layout.bfloat16 ? 2 : 4);
  const auto arranged = AllocateAligned(args.m * token_bytes);
  std::vector<int32_t> first_group(static_cast<size_t>(args.blocks)),
      lane_group(static_cast<size_t>(args.blocks * layout.lanes));
  cpu::ArrangeGroups(args.k, args.group_size, layout, first_group.data(), lane_group.data());
  args.padded_groups = CeilDiv(args.groups, layout.lanes) * layout.lanes;
  std::vector<float> x_sums(static_cast<size_t>(args.m * args.padded_groups));
  torch::stable::parallel_for(0, args.m, RowGrain(args.k), [&](int64_t begin, int64_t end) {
    std::vector<float> token(static_cast<size_t>(args.k));
    for (int64_t i = begin; i < end; ++i) {
      const char* row = static_cast<const char*>(x) + i * args.k * DTypeBytes(dtype);
      cpu::ScaleRowsToFloat(row, dtype, 1, args.k, column_scale.data(), token.data());
      cpu::ArrangeActivations(token.data(), args.k, args.group_size, layout,
                              static_cast<char*>(arranged.get()) + i * token_bytes,
                              x_sums.data() + i * args.padded_groups);
    }
  });
  args.x = arranged.get();
  args.x_sums = x_sums.data();
  args.first_group = first_group.data();
  args.lane_group = lane_group.data();
  args.y = sums;
  torch::stable::parallel_for(0, args.n, RowGrain(args.k * args.m), [&](int64_t begin, int64_t end) {
    std::vector<float> scratch(static_cast<size_t>(cpu::ScratchFloats(kernel, args)));
    kernel.run(args, begin, end, scratch.data());
  });
}

}  // namespace

Tensor DualShiftLinearCpu(const Tensor& x, const Tensor& codes, const Tensor& scale, const Tensor& zero,
                          const Tensor& column_scale, const std::optional<Tensor>& bias, int64_t bits,
                          int64_t group_size, std::string codebook) {
  const DType dtype = FloatDType(x, kOp, "x");
  const cpu::DualShiftLinearArgs args = CheckedArgs(x, codes, scale, zero, column_scale, bits, group_size, codebook);
  if (bias.has_value()) {
    CheckTensor(*bias, x.scalar_type(), kOp, "bias");
    CheckNumel(*bias, args.n, kOp, "bias");
  }
  Tensor y = torch::stable::new_empty(x, {args.m, args.n});
  std::vector<float> sums(static_cast<size_t>(args.m * args.n));  // stays 0 where k is 0
  if (args.m > 0 && args.n > 0 && args.k > 0)
    RunKernel(args, x.const_data_ptr(), dtype, ToFloats(column_scale), sums.data());
  cpu::StoreRows(sums.data(), bias.has_value() ? bias->const_data_ptr() : nullptr, args.m, args.n, dtype,
                 y.mutable_data_ptr());
  return y;
}

}  // namespace prism

STABLE_TORCH_LIBRARY_IMPL(prism, CPU, m) { m.impl("dual_shift_linear", TORCH_BOX(&prism::DualShiftLinearCpu)); }
