#pragma once

#include <map>
#include <memory>
#include <string>

#include "absl/status/statusor.h"

#include "core/threads/mutex.h"
#include "experts/arch_spec.h"
#include "experts/base_source.h"
#include "experts/expert.h"

namespace coterie {

// What can be said of a model without loading it.
struct BaseProfile {
  ArchSpec spec;
  bool has_chat_template = false;
  int64_t weight_bytes = 0;
  int64_t tokenizer_bytes = 0;  // An upper estimate from the size of the vocabulary.
  uint64_t version = 0;         // Of the weight files: their sizes and times of change.
};

// Loads bases from what ModelFiles opens. Thread-safe.
class FileBaseSource : public BaseSource {
 public:
  // A base id stands for a file or folder from now on.
  void Register(const BaseId& id, std::string path);

  // Reads the model's description and finds its tensors, once per id and version of
  // the files that Measure sees.
  absl::StatusOr<BaseProfile> Profile(const BaseId& id);

  absl::StatusOr<BaseFootprint> Measure(const BaseId& id) override;
  absl::StatusOr<std::shared_ptr<const BaseModel>> Load(const BaseId& id, LoadObserver& observer,
                                                        std::stop_token cancel) override;

 private:
  absl::StatusOr<std::string> PathOf(const BaseId& id);

  Mutex mutex_;
  std::map<BaseId, std::string> paths_ ABSL_GUARDED_BY(mutex_);
  std::map<BaseId, BaseProfile> profiles_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace coterie
