#include "lora/torch_kernels.h"

#include <dlfcn.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"

#include "core/base/status_macros.h"
#include "lora/torch_kernels_source.h"

namespace coterie {
namespace {

// The few functions used of the CUDA driver and of NVRTC, by their documented C interfaces.
struct Api {
  int (*cuCtxGetDevice)(int*);
  int (*cuDeviceGetAttribute)(int*, int, int);
  int (*cuMemGetInfo)(size_t*, size_t*);
  int (*cuModuleLoadData)(void**, const void*);
  int (*cuModuleGetFunction)(void**, void*, const char*);
  int (*cuLaunchKernel)(void*, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned,
                        void*, void**, void**);
  int (*nvrtcCreateProgram)(void**, const char*, const char*, int, const char* const*,
                            const char* const*);
  int (*nvrtcCompileProgram)(void*, int, const char* const*);
  int (*nvrtcGetCUBINSize)(void*, size_t*);
  int (*nvrtcGetCUBIN)(void*, char*);
  int (*nvrtcGetProgramLogSize)(void*, size_t*);
  int (*nvrtcGetProgramLog)(void*, char*);
  int (*nvrtcDestroyProgram)(void**);
};

template <typename Function>
bool Find(void* library, const char* name, Function& function) {
  function = reinterpret_cast<Function>(dlsym(library, name));
  return function != nullptr;
}

// PyTorch's own bridge to NVRTC is linked to it and to the driver: both are found through it.
absl::StatusOr<Api> FindApi() {
  void* library = dlopen("libcaffe2_nvrtc.so", RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) return absl::UnavailableError(absl::StrCat("no NVRTC: ", dlerror()));
  Api api;
  const bool found = Find(library, "cuCtxGetDevice", api.cuCtxGetDevice) &&
                     Find(library, "cuDeviceGetAttribute", api.cuDeviceGetAttribute) &&
                     Find(library, "cuMemGetInfo_v2", api.cuMemGetInfo) &&
                     Find(library, "cuModuleLoadData", api.cuModuleLoadData) &&
                     Find(library, "cuModuleGetFunction", api.cuModuleGetFunction) &&
                     Find(library, "cuLaunchKernel", api.cuLaunchKernel) &&
                     Find(library, "nvrtcCreateProgram", api.nvrtcCreateProgram) &&
                     Find(library, "nvrtcCompileProgram", api.nvrtcCompileProgram) &&
                     Find(library, "nvrtcGetCUBINSize", api.nvrtcGetCUBINSize) &&
                     Find(library, "nvrtcGetCUBIN", api.nvrtcGetCUBIN) &&
                     Find(library, "nvrtcGetProgramLogSize", api.nvrtcGetProgramLogSize) &&
                     Find(library, "nvrtcGetProgramLog", api.nvrtcGetProgramLog) &&
                     Find(library, "nvrtcDestroyProgram", api.nvrtcDestroyProgram);
  if (!found) return absl::UnavailableError(absl::StrCat("NVRTC lacks a function: ", dlerror()));
  return api;
}

const absl::StatusOr<Api>& TheApi() {
  static const absl::StatusOr<Api>* const api = new absl::StatusOr<Api>(FindApi());
  return *api;
}

absl::StatusOr<std::vector<char>> CompileSource(const Api& api) {
  constexpr int kMajor = 75, kMinor = 76;  // CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*
  int device = 0, major = 0, minor = 0;
  const bool known = api.cuCtxGetDevice(&device) == 0 &&
                     api.cuDeviceGetAttribute(&major, kMajor, device) == 0 &&
                     api.cuDeviceGetAttribute(&minor, kMinor, device) == 0;
  if (!known) return absl::UnavailableError("no current CUDA device");
  if (major < 8) return absl::UnavailableError("the GPU has no bf16");
  void* program = nullptr;
  const int created =
      api.nvrtcCreateProgram(&program, kTorchKernelsSource, "coterie.cu", 0, nullptr, nullptr);
  if (created != 0) return absl::UnavailableError(absl::StrCat("NVRTC error ", created));
  const std::string arch = absl::StrCat("--gpu-architecture=sm_", major, minor);
  const char* const options[] = {arch.c_str()};
  const int compiled = api.nvrtcCompileProgram(program, 1, options);
  size_t size = 0;
  if (compiled != 0) {
    api.nvrtcGetProgramLogSize(program, &size);
    std::string log(size, '\0');
    api.nvrtcGetProgramLog(program, log.data());
    api.nvrtcDestroyProgram(&program);
    return absl::UnavailableError(absl::StrCat("kernels did not compile for ", arch, ": ", log));
  }
  api.nvrtcGetCUBINSize(program, &size);
  std::vector<char> image(size);
  api.nvrtcGetCUBIN(program, image.data());
  api.nvrtcDestroyProgram(&program);
  return image;
}

}  // namespace

absl::StatusOr<std::unique_ptr<TorchKernels>> TorchKernels::Compile() {
  if (!TheApi().ok()) return TheApi().status();
  const Api& api = *TheApi();
  COTERIE_ASSIGN_OR_RETURN(const std::vector<char> image, CompileSource(api));
  void* module = nullptr;  // Stays loaded with the context.
  const int loaded = api.cuModuleLoadData(&module, image.data());
  if (loaded != 0) return absl::UnavailableError(absl::StrCat("CUDA driver error ", loaded));
  static constexpr const char* kNames[kKernelCount] = {
      "add_norm",          "row_norm", "norm_backward", "rope", "activate",
      "activate_backward", "drop",     "cross_entropy", "place"};
  std::unique_ptr<TorchKernels> kernels(new TorchKernels);
  for (int i = 0; i < kKernelCount; ++i) {
    if (api.cuModuleGetFunction(&kernels->functions_[i], module, kNames[i]) != 0) {
      return absl::UnavailableError(absl::StrCat("a kernel is missing: ", kNames[i]));
    }
  }
  return kernels;
}

absl::StatusOr<TorchKernels::Memory> TorchKernels::DeviceMemory() {
  if (!TheApi().ok()) return TheApi().status();
  size_t free = 0, total = 0;
  if (TheApi()->cuMemGetInfo(&free, &total) != 0) {
    return absl::UnavailableError("the CUDA driver does not say how much memory is free");
  }
  return Memory{free, total};
}

bool TorchKernels::LaunchPointers(Kernel kernel, int64_t n_blocks, int64_t n_blocks_y,
                                  void** args) const {
  return TheApi()->cuLaunchKernel(functions_[kernel], static_cast<unsigned>(n_blocks),
                                  static_cast<unsigned>(n_blocks_y), 1, kTorchKernelThreads, 1, 1,
                                  0, nullptr, args, nullptr) == 0;
}

}  // namespace coterie
