#pragma once

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"

namespace coterie {

// The fused element-wise kernels of lora/torch_kernels_source.h on the current CUDA device, and
// what else only the driver knows. Everything is found in the libraries that PyTorch brings: no
// CUDA header or compiler is needed to build this.
class TorchKernels {
 public:
  enum Kernel : uint8_t {
    kAddNorm,
    kNorm,
    kNormBackward,
    kRope,
    kActivate,
    kActivateBackward,
    kDrop,
    kCrossEntropy,
    kPlace,
    kKernelCount,
  };

  // kUnavailable where the device or the libraries cannot do it, saying why.
  static absl::StatusOr<std::unique_ptr<TorchKernels>> Compile();

  // Free and total bytes of the current device.
  struct Memory {
    uint64_t free = 0;
    uint64_t total = 0;
  };
  static absl::StatusOr<Memory> DeviceMemory();

  // Starts a kernel on the default stream; the types of args are those of its parameters. False if
  // the driver refused.
  template <typename... Args>
  [[nodiscard]] bool Launch(Kernel kernel, int64_t n_blocks, int64_t n_blocks_y,
                            Args... args) const {
    void* pointers[] = {&args...};
    return LaunchPointers(kernel, n_blocks, n_blocks_y, pointers);
  }

 private:
  TorchKernels() = default;
  bool LaunchPointers(Kernel kernel, int64_t n_blocks, int64_t n_blocks_y, void** args) const;

  void* functions_[kKernelCount] = {};
};

}  // namespace coterie
