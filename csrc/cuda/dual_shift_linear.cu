// Chooses the Source and the arithmetic. The plain kernel: dual_shift_linear_plain.cu.
#include "dual_shift_linear.cuh"

#include "common/panel_mma_launch.cuh"
#include "common/plane_source.cuh"
#include "dual_shift_linear_plain.cuh"
#include "pad_activations.cuh"

namespace prism::cuda {
namespace {

int64_t GroupBlocks(const DualShiftLinearArgs& a) {
  return a.group_size >= a.k ? NumBlocks32(a.k) : a.group_size / kBlockColumns;
}

bool TakesTensorCores(const DualShiftLinearArgs& a) {
  const bool whole_blocks = a.group_size % kBlockColumns == 0 || a.group_size >= a.k;
  return a.x_dtype != DType::kFloat32 && whole_blocks && a.k > 0 &&
         NumBlocks32(a.k) * GroupBlocks(a) < kGroupReciprocalLimit;
}

int64_t PaddedColumns(const DualShiftLinearArgs& a) { return NumBlocks32(a.k) * kBlockColumns; }

// Whether rows of x are not whole blocks of columns, in vectors of 16 bytes.
bool NeedsPadding(const DualShiftLinearArgs& a) {
  return a.k % kBlockColumns != 0 || !Aligned16(a.x) || !Aligned16(a.column_scale);
}

template <PlaneKind kKind>
cudaError_t LaunchKind(const PlaneArgs& weight, const PanelLinearArgs& linear, DType dtype, cudaStream_t stream) {
  using Source = PlaneSource<kKind>;
  if (dtype == DType::kFloat16) return LaunchPanelLinear<Source, Float16Arithmetic>(weight, linear, stream);
  return LaunchPanelLinear<Source, BFloat16Arithmetic>(weight, linear, stream);
}

}  // namespace

int64_t DualShiftLinearWorkspace(const DualShiftLinearArgs& a) {
  if (!TakesTensorCores(a)) return 0;
  return PanelLinearWorkspace(a.m, a.n, a.k) + (NeedsPadding(a) ? a.m * PaddedColumns(a) / 2 : 0);
}

cudaError_t DualShiftLinear(const DualShiftLinearArgs& a, cudaStream_t stream) {
  if (!TakesTensorCores(a)) return DualShiftLinearPlain(a, stream);
  PlaneArgs weight{};
  weight.codes = a.codes;
  weight.blocks = NumBlocks32(a.k);
  const int64_t group_blocks = GroupBlocks(a);
  weight.grid = {a.scale, a.zero, static_cast<int>(CeilDiv(a.k, a.group_size)), GroupReciprocal(group_blocks), a.bits};
  const int64_t partial_sums = PanelLinearWorkspace(a.m, a.n, a.k);
  PanelLinearArgs linear;
  linear.x = a.x;
  linear.column_scale = a.column_scale;
  linear.out = {a.y, a.bias, a.token_scale, a.workspace, a.y_dtype, a.m, a.n};
  linear.k = static_cast<int>(PaddedColumns(a));
  linear.group_blocks = static_cast<int>(group_blocks);
  if (NeedsPadding(a)) {
    auto* const padded = reinterpret_cast<uint16_t*>(a.workspace + partial_sums);
    const cudaError_t error = PadActivations(a.x, a.x_dtype, a.column_scale, a.m, a.k, linear.k, padded, stream);
    if (error != cudaSuccess) return error;
    linear.x = padded;
    linear.column_scale = nullptr;
  }
  if (a.codebook != Codebook::kUniform) {
    weight.levels = MakeLevelBytes(a.codebook, a.x_dtype);
    return LaunchKind<PlaneKind::kLevels>(weight, linear, a.x_dtype, stream);
  }
  if (a.bits == 4) return LaunchKind<PlaneKind::kNibbles>(weight, linear, a.x_dtype, stream);
  if (a.bits == 8) return LaunchKind<PlaneKind::kBytes>(weight, linear, a.x_dtype, stream);
  return LaunchKind<PlaneKind::kPlanes>(weight, linear, a.x_dtype, stream);
}

}  // namespace prism::cuda
