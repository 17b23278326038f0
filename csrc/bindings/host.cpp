// prism_kernels._host: facts about this machine and this build, without torch.
#include <pybind11/pybind11.h>

#include "../cpu/isa.h"

namespace py = pybind11;

namespace {

py::list SupportedIsas() {
  py::list names;
  for (const auto isa : {prism::cpu::Isa::kGeneric, prism::cpu::Isa::kAvx2, prism::cpu::Isa::kAvx512, prism::cpu::Isa::kAvx512Bf16}) {
    if (prism::cpu::IsaSupported(isa)) names.append(prism::cpu::IsaName(isa));
  }
  return names;
}

py::dict BuildInfo() {
  py::dict info;
  info["compiler"] = PRISM_COMPILER;
  info["build_type"] = PRISM_BUILD_TYPE;
  info["cuda"] = PRISM_CUDA_VERSION;  // "" where nvcc was absent
  info["cuda_archs"] = PRISM_CUDA_ARCHS;
  return info;
}

}  // namespace

PYBIND11_MODULE(_host, module) {
  module.doc() = "Facts about this machine and this build; imports no torch.";
  module.def("supported_isas", &SupportedIsas, "Instruction sets this CPU can run, weakest first.");
  module.def("build_info", &BuildInfo, "Compiler, build type, and CUDA version and architectures of this build.");
}
