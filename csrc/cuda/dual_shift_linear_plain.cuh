// The plain kernel behind dual_shift_linear.cuh; also for comparison in tests.
#pragma once
#include "dual_shift_linear.cuh"

namespace prism::cuda {
cudaError_t DualShiftLinearPlain(const DualShiftLinearArgs& args, cudaStream_t stream);
}  // namespace prism::cuda
