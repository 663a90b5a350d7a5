#include "lora/trainer_library.h"

#include <dlfcn.h>

#include <filesystem>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

#include "core/base/status_macros.h"

namespace coterie {
namespace {

constexpr char kFileName[] = "libcoterie_train.so";

absl::Status NoLibrary(absl::string_view why) {
  return absl::UnimplementedError(absl::StrCat(
      "training on this device needs ", kFileName,
      ", which is built with -DCOTERIE_TORCH=ON and PyTorch and lies beside libcoterie (see "
      "docs/gpu.md); or train on the CPU: ",
      why));
}

// Where the code that you are reading lies: libcoterie, or the program that it is part of.
std::filesystem::path OwnFolder() {
  Dl_info info;
  if (dladdr(reinterpret_cast<const void*>(&MakeTorchTrainer), &info) == 0) return {};
  return std::filesystem::path(info.dli_fname).parent_path();
}

absl::StatusOr<TrainerLibraryMake*> OpenLibrary() {
  const std::string beside = OwnFolder() / kFileName;
  // Never closed: LibTorch does not survive that.
  void* library = dlopen(beside.c_str(), RTLD_NOW | RTLD_LOCAL);
  std::string why;
  if (library == nullptr) {
    why = dlerror();
    library = dlopen(kFileName, RTLD_NOW | RTLD_LOCAL);
  }
  if (library == nullptr) return NoLibrary(why);
  const auto version =
      reinterpret_cast<TrainerLibraryVersion*>(dlsym(library, "coterie_train_version"));
  const auto make = reinterpret_cast<TrainerLibraryMake*>(dlsym(library, "coterie_train_make"));
  if (version == nullptr || make == nullptr || version() != kTrainerLibraryVersion) {
    return NoLibrary(absl::StrCat("the one found is of another version: file=", beside));
  }
  return make;
}

}  // namespace

bool IsTorchDevice(absl::string_view device) {
  return device == "cuda" || absl::StartsWith(device, "cuda:") || device == "torch:cpu";
}

absl::StatusOr<std::unique_ptr<Trainer>> MakeTorchTrainer(const ArchSpec& spec,
                                                          const DecoderWeights& weights,
                                                          WorkerPool& pool, MemoryBudget& budget,
                                                          const TrainerOptions& options,
                                                          int64_t max_tokens) {
  static const absl::StatusOr<TrainerLibraryMake*>* const make =
      new absl::StatusOr<TrainerLibraryMake*>(OpenLibrary());
  COTERIE_RETURN_IF_ERROR(make->status());
  absl::StatusOr<std::unique_ptr<Trainer>> trainer = absl::InternalError("made no trainer");
  (**make)({&spec, &weights, &pool, &budget, &options, max_tokens}, &trainer);
  return trainer;
}

}  // namespace coterie
