#include "experts/gguf_base_source.h"

#include <algorithm>
#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"

#include "core/base/status_macros.h"

namespace coterie {
namespace {

// Bytes read between two reports of progress and looks at a cancel.
constexpr size_t kLoadStepBytes = 32 << 20;

uint64_t FileVersion(const std::string& path) {
  std::error_code error;
  const auto time = std::filesystem::last_write_time(path, error);
  if (error) return 0;
  const auto size = std::filesystem::file_size(path, error);
  return static_cast<uint64_t>(time.time_since_epoch().count()) * 31 + (error ? 0 : size);
}

}  // namespace

void GgufBaseSource::Register(const BaseId& id, std::string path) {
  MutexLock lock(mutex_);
  paths_[id] = std::move(path);
}

absl::StatusOr<std::string> GgufBaseSource::PathOf(const BaseId& id) {
  MutexLock lock(mutex_);
  const auto it = paths_.find(id);
  if (it == paths_.end()) return absl::NotFoundError(absl::StrCat("unknown base: id=", id));
  return it->second;
}

absl::StatusOr<BaseProfile> GgufBaseSource::Profile(const BaseId& id) {
  {
    MutexLock lock(mutex_);
    const auto it = profiles_.find(id);
    if (it != profiles_.end()) return it->second;
  }
  COTERIE_ASSIGN_OR_RETURN(const std::string path, PathOf(id));
  COTERIE_ASSIGN_OR_RETURN(const std::unique_ptr<const GgufFile> file, GgufFile::Open(path));
  BaseProfile profile;
  profile.version = FileVersion(path);
  COTERIE_ASSIGN_OR_RETURN(profile.spec, ArchSpec::FromGguf(*file));
  profile.weight_bytes = file->tensor_bytes();
  COTERIE_ASSIGN_OR_RETURN(profile.tokenizer_bytes, Tokenizer::EstimateBytes(*file));
  MutexLock lock(mutex_);
  profiles_[id] = profile;
  return profile;
}

absl::StatusOr<BaseFootprint> GgufBaseSource::Measure(const BaseId& id) {
  COTERIE_ASSIGN_OR_RETURN(const std::string path, PathOf(id));
  const uint64_t version = FileVersion(path);
  {
    MutexLock lock(mutex_);
    const auto it = profiles_.find(id);
    if (it != profiles_.end() && it->second.version != version) profiles_.erase(it);
  }
  COTERIE_ASSIGN_OR_RETURN(const BaseProfile profile, Profile(id));
  return BaseFootprint{profile.weight_bytes, profile.tokenizer_bytes, version};
}

absl::StatusOr<std::shared_ptr<const BaseModel>> GgufBaseSource::Load(const BaseId& id,
                                                                      LoadObserver& observer,
                                                                      std::stop_token cancel) {
  COTERIE_ASSIGN_OR_RETURN(const std::string path, PathOf(id));
  COTERIE_ASSIGN_OR_RETURN(const std::shared_ptr<const Expert> expert, Expert::Open(path));
  const MappedFile& mapping = *expert->file().mapping();
  const int64_t total_bytes = mapping.size();
  mapping.WillNeed(mapping.bytes());
  for (absl::Span<const uint8_t> rest = mapping.bytes(); !rest.empty();) {
    if (cancel.stop_requested()) {
      return absl::CancelledError(absl::StrCat("cancelled while loading: file=", path));
    }
    const size_t n = std::min(rest.size(), kLoadStepBytes);
    mapping.Populate(rest.first(n));
    rest.remove_prefix(n);
    observer.OnProgress(total_bytes - static_cast<int64_t>(rest.size()), total_bytes);
  }
  return expert;
}

}  // namespace coterie
