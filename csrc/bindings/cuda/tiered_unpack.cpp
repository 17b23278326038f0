#include "../../cuda/tiered_unpack.cuh"

#include "tiered_common.h"

namespace prism {

Tensor TieredUnpackCuda(const Tensor& tiers, const Tensor& masks, const Tensor& values, const Tensor& panel_offsets,
                        int64_t n, int64_t k) {
  const cuda::TieredBlocks weight = CheckTieredOnDevice(tiers, masks, values, panel_offsets, n, k, "tiered_unpack");
  const CurrentStream current(values);
  Tensor dense = torch::stable::new_empty(values, {n, k});
  CheckLaunch(cuda::TieredUnpack(weight, dense.mutable_data_ptr(), current.stream), "tiered_unpack");
  return dense;
}

}  // namespace prism

STABLE_TORCH_LIBRARY_IMPL(prism, CUDA, m) { m.impl("tiered_unpack", TORCH_BOX(&prism::TieredUnpackCuda)); }
