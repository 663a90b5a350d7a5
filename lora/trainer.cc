#include "lora/trainer.h"

#include <dlfcn.h>

#include <string>

#include "absl/strings/str_cat.h"

#include "lora/trainer_library.h"

namespace coterie {
namespace {

// The folder of the library (or program) that this code is in.
std::string FolderOfThisCode() {
  Dl_info info;
  if (dladdr(reinterpret_cast<const void*>(&MakeTrainer), &info) == 0 ||
      info.dli_fname == nullptr) {
    return ".";
  }
  const std::string path = info.dli_fname;
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? "." : path.substr(0, slash);
}

absl::StatusOr<TrainerFactory> OpenTrainerLibrary() {
  // Beside this library; else where the loader looks, for programs that link the layers themselves.
  const std::string beside = absl::StrCat(FolderOfThisCode(), "/", kTrainerLibrary);
  void* library = dlopen(beside.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    const std::string why = dlerror();
    library = dlopen(kTrainerLibrary, RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) {
      return absl::UnimplementedError(absl::StrCat(
          "there is no trainer here; install it with `pip install coterie[train]`, or build with "
          "COTERIE_TORCH=ON: ",
          why));
    }
  }
  void* factory = dlsym(library, kTrainerFactory);
  if (factory == nullptr) {
    return absl::UnimplementedError(
        absl::StrCat("the trainer does not belong to this coterie: ", beside));
  }
  return reinterpret_cast<TrainerFactory>(factory);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Trainer>> MakeTrainer(const Expert& expert, WorkerPool& pool,
                                                     MemoryBudget& budget,
                                                     const TrainerOptions& options,
                                                     int64_t max_tokens) {
  static const absl::StatusOr<TrainerFactory> factory = OpenTrainerLibrary();
  if (!factory.ok()) return factory.status();
  return (*factory)(expert, pool, budget, options, max_tokens);
}

}  // namespace coterie
