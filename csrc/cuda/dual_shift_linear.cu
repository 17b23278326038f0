// Chooses the Source and the arithmetic. The plain kernel: dual_shift_linear_plain.cu.
#include "dual_shift_linear.cuh"

#include "common/panel_mma_launch.cuh"
#include "common/plane_source.cuh"
#include "dual_shift_linear_plain.cuh"

namespace prism::cuda {
namespace {

bool TakesTensorCores(const DualShiftLinearArgs& a) {
  return a.x_dtype != DType::kFloat32 && (a.group_size % kBlockColumns == 0 || a.group_size >= a.k);
}

template <PlaneKind kKind>
cudaError_t LaunchKind(const PlaneArgs& weight, const PanelLinearArgs& linear, DType dtype, cudaStream_t stream) {
  using Source = PlaneSource<kKind>;
  if (dtype == DType::kFloat16) return LaunchPanelLinear<Source, Float16Arithmetic>(weight, linear, stream);
  return LaunchPanelLinear<Source, BFloat16Arithmetic>(weight, linear, stream);
}

}  // namespace

int64_t DualShiftLinearWorkspace(const DualShiftLinearArgs& a) {
  return TakesTensorCores(a) ? PanelLinearWorkspace(a.m, a.n, a.k) : 0;
}

cudaError_t DualShiftLinear(const DualShiftLinearArgs& a, cudaStream_t stream) {
  if (!TakesTensorCores(a)) return DualShiftLinearPlain(a, stream);
  PlaneArgs weight{};
  weight.codes = a.codes;
  weight.blocks = NumBlocks32(a.k);
  const int64_t whole = weight.blocks, group_blocks = a.group_size >= a.k ? whole : a.group_size / kBlockColumns;
  weight.grid = {a.scale, a.zero, CeilDiv(a.k, a.group_size), static_cast<int>(group_blocks), a.bits};
  PanelLinearArgs linear;
  linear.x = a.x;
  linear.column_scale = a.column_scale;
  linear.token_scale = a.token_scale;
  linear.bias = a.bias;
  linear.y = a.y;
  linear.y_dtype = a.y_dtype;
  linear.m = a.m, linear.n = a.n, linear.k = a.k;
  linear.group_blocks = group_blocks;
  linear.workspace = a.workspace;
  if (a.codebook != Codebook::kUniform) {
    weight.levels = MakeLevelBytes(a.codebook, a.x_dtype);
    return LaunchKind<PlaneKind::kLevels>(weight, linear, a.x_dtype, stream);
  }
  if (a.bits == 4) return LaunchKind<PlaneKind::kNibbles>(weight, linear, a.x_dtype, stream);
  if (a.bits == 8) return LaunchKind<PlaneKind::kBytes>(weight, linear, a.x_dtype, stream);
  return LaunchKind<PlaneKind::kPlanes>(weight, linear, a.x_dtype, stream);
}

}  // namespace prism::cuda
