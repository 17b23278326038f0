// What every CUDA binding needs: the device guard, the current stream, and the launch check.
#pragma once
#include <cuda_runtime.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/util/Exception.h>

// torch declares this in a header of CUDA builds only; with it declared here the file also compiles against a CPU torch.
extern "C" AOTITorchError aoti_torch_get_current_cuda_stream(int32_t device_index, void** ret_stream);

namespace prism {

struct CurrentStream {
  explicit CurrentStream(const torch::stable::Tensor& t) : guard(t.get_device_index()) {
    void* raw = nullptr;
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(t.get_device_index(), &raw));
    stream = static_cast<cudaStream_t>(raw);
  }
  torch::stable::accelerator::DeviceGuard guard;
  cudaStream_t stream;
};

inline void CheckLaunch(cudaError_t error, const char* op) {
  STD_TORCH_CHECK(error == cudaSuccess, op, ": CUDA launch failed: ", cudaGetErrorString(error));
}

}  // namespace prism
