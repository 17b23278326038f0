#include "../../cpu/tiered_unpack.h"

#include "tiered_common.h"

namespace prism {

Tensor TieredUnpackCpu(const Tensor& tiers, const Tensor& masks, const Tensor& values, const Tensor& panel_offsets,
                       int64_t n, int64_t k) {
  const cpu::TieredBlocks weight = CheckTiered(tiers, masks, values, panel_offsets, n, k, "tiered_unpack");
  Tensor dense = torch::stable::new_empty(values, {n, k});
  void* out = dense.mutable_data_ptr();
  const cpu::TieredUnpackFn kernel = cpu::PickTieredUnpack();
  torch::stable::parallel_for(0, NumPanels(n), 1, [&](int64_t begin, int64_t end) { kernel(weight, n, begin, end, out); });
  return dense;
}

}  // namespace prism

STABLE_TORCH_LIBRARY_IMPL(prism, CPU, m) { m.impl("tiered_unpack", TORCH_BOX(&prism::TieredUnpackCpu)); }
