# Finds nvcc and defines the static library prism_cuda (launchers on raw pointers). Sets PRISM_CUDA_VERSION, PRISM_CUDA_ARCHS.
include(CheckLanguage)
check_language(CUDA)
if(NOT CMAKE_CUDA_COMPILER)
  if(PRISM_CUDA STREQUAL "ON")
    message(FATAL_ERROR "PRISM_CUDA=ON, but no CUDA compiler was found; set CUDACXX or CUDA_HOME")
  endif()
  message(STATUS "prism: no nvcc found, building without CUDA ops")
  return()
endif()

# Real code for the data-centre generations, and PTX of the newest for what comes later. TORCH_CUDA_ARCH_LIST is not
# consulted: it names the user's GPU, and without a GPU it is empty, which is no reason to build nothing. CMake's own
# variable CUDAARCHS is.
if(NOT CMAKE_CUDA_ARCHITECTURES AND NOT DEFINED ENV{CUDAARCHS})
  set(CMAKE_CUDA_ARCHITECTURES 80-real 90-real 100)
endif()
enable_language(CUDA)
find_package(CUDAToolkit REQUIRED)
set(CMAKE_CUDA_STANDARD 17)  # what CMake 3.22 knows how to ask nvcc for
set(PRISM_CUDA_VERSION "${CMAKE_CUDA_COMPILER_VERSION}")
list(JOIN CMAKE_CUDA_ARCHITECTURES " " PRISM_CUDA_ARCHS)

file(GLOB PRISM_CUDA_SOURCES CONFIGURE_DEPENDS csrc/cuda/*.cu)
add_library(prism_cuda STATIC ${PRISM_CUDA_SOURCES})
target_link_libraries(prism_cuda PUBLIC CUDA::cudart_static)
# As on the CPU, no contraction: a fused multiply-add only where the source writes one.
target_compile_options(prism_cuda PRIVATE $<$<COMPILE_LANGUAGE:CUDA>:-fmad=false>)
set_target_properties(prism_cuda PROPERTIES POSITION_INDEPENDENT_CODE ON)
