// Marks arithmetic that C++ kernels and CUDA kernels share.
#pragma once

#ifdef __CUDACC__
#define PRISM_HOST_DEVICE __host__ __device__
#else
#define PRISM_HOST_DEVICE
#endif
