// Which instruction set the CPU kernels run, and which kernel ran last: for `python -m prism_kernels`, tests and benchmarks.
#include "../../cpu/isa.h"

#include "../common.h"

namespace prism {

std::string ActiveIsaName() { return cpu::IsaName(cpu::ActiveIsa()); }

std::string ForceIsaByName(std::string name) {
  cpu::ForceIsa(name);
  return ActiveIsaName();
}

std::string LastKernelName() { return cpu::LastKernel(); }

}  // namespace prism

STABLE_TORCH_LIBRARY_IMPL(prism, CompositeExplicitAutograd, m) {
  m.impl("_active_isa", TORCH_BOX(&prism::ActiveIsaName));
  m.impl("_force_isa", TORCH_BOX(&prism::ForceIsaByName));
  m.impl("_last_kernel", TORCH_BOX(&prism::LastKernelName));
}
