#include "experts/file_base_source.h"

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"

#include "core/base/status_macros.h"
#include "experts/decoder_weights.h"
#include "experts/model_files.h"

namespace coterie {
namespace {

// Bytes read between two reports of progress and looks at a cancel.
constexpr size_t kLoadStepBytes = 32 << 20;

uint64_t FilesVersion(const std::string& path) {
  uint64_t version = 0;
  const absl::StatusOr<std::vector<std::string>> files = WeightFilesOf(path);
  if (!files.ok()) return version;
  for (const std::string& file : *files) {
    std::error_code error;
    const auto time = std::filesystem::last_write_time(file, error);
    if (error) return 0;
    const auto size = std::filesystem::file_size(file, error);
    version = (version * 31 + static_cast<uint64_t>(time.time_since_epoch().count())) * 31 +
              (error ? 0 : size);
  }
  return version;
}

// Reads all that is mapped, in order. Returns false once `ends` says that nobody needs it.
bool ReadAhead(absl::Span<const MappedFile* const> mappings, LoadObserver& observer,
               absl::FunctionRef<bool()> ends) {
  int64_t total_bytes = 0;
  for (const MappedFile* mapping : mappings) total_bytes += mapping->size();
  int64_t done_bytes = 0;
  for (const MappedFile* mapping : mappings) {
    mapping->WillNeed(mapping->bytes());
    for (absl::Span<const uint8_t> rest = mapping->bytes(); !rest.empty();) {
      if (ends()) return false;
      const size_t n = std::min(rest.size(), kLoadStepBytes);
      mapping->Populate(rest.first(n));
      rest.remove_prefix(n);
      done_bytes += static_cast<int64_t>(n);
      observer.OnProgress(done_bytes, total_bytes);
    }
  }
  return true;
}

}  // namespace

void FileBaseSource::Register(const BaseId& id, std::string path) {
  MutexLock lock(mutex_);
  paths_[id] = std::move(path);
}

absl::StatusOr<std::string> FileBaseSource::PathOf(const BaseId& id) {
  MutexLock lock(mutex_);
  const auto it = paths_.find(id);
  if (it == paths_.end()) return absl::NotFoundError(absl::StrCat("unknown base: id=", id));
  return it->second;
}

absl::StatusOr<BaseProfile> FileBaseSource::Profile(const BaseId& id) {
  {
    MutexLock lock(mutex_);
    const auto it = profiles_.find(id);
    if (it != profiles_.end()) return it->second;
  }
  COTERIE_ASSIGN_OR_RETURN(const std::string path, PathOf(id));
  COTERIE_ASSIGN_OR_RETURN(const std::unique_ptr<const ModelFiles> files, ModelFiles::Open(path));
  BaseProfile profile;
  profile.version = FilesVersion(path);
  COTERIE_ASSIGN_OR_RETURN(profile.spec, files->ReadSpec());
  COTERIE_ASSIGN_OR_RETURN(const DecoderWeights weights,
                           DecoderWeights::From(*files, profile.spec));
  profile.weight_bytes = files->tensor_bytes() + weights.converted_bytes;
  COTERIE_ASSIGN_OR_RETURN(profile.tokenizer_bytes, files->EstimateTokenizerBytes());
  COTERIE_ASSIGN_OR_RETURN(const std::string chat_template, files->ReadChatTemplate());
  profile.has_chat_template = !chat_template.empty();
  MutexLock lock(mutex_);
  profiles_[id] = profile;
  return profile;
}

absl::StatusOr<BaseFootprint> FileBaseSource::Measure(const BaseId& id) {
  COTERIE_ASSIGN_OR_RETURN(const std::string path, PathOf(id));
  const uint64_t version = FilesVersion(path);
  {
    MutexLock lock(mutex_);
    const auto it = profiles_.find(id);
    if (it != profiles_.end() && it->second.version != version) profiles_.erase(it);
  }
  COTERIE_ASSIGN_OR_RETURN(const BaseProfile profile, Profile(id));
  return BaseFootprint{profile.weight_bytes, profile.tokenizer_bytes, version};
}

absl::StatusOr<std::shared_ptr<const BaseModel>> FileBaseSource::Load(const BaseId& id,
                                                                      LoadObserver& observer,
                                                                      std::stop_token cancel) {
  COTERIE_ASSIGN_OR_RETURN(const std::string path, PathOf(id));
  COTERIE_ASSIGN_OR_RETURN(std::unique_ptr<const ModelFiles> files, ModelFiles::Open(path));
  const std::vector<const MappedFile*> mappings = files->mappings();
  // Building the tokenizer takes about as long as mapping the weights from the page cache.
  absl::StatusOr<std::shared_ptr<const Expert>> expert = absl::UnknownError("not opened");
  std::atomic<bool> is_refused = false;
  std::jthread opening([&] {
    expert = Expert::Open(std::move(files));
    is_refused = !expert.ok();
  });
  const bool is_whole =
      ReadAhead(mappings, observer, [&] { return is_refused.load() || cancel.stop_requested(); });
  opening.join();
  COTERIE_RETURN_IF_ERROR(expert.status());
  if (!is_whole) return absl::CancelledError(absl::StrCat("cancelled while loading: file=", path));
  return *expert;
}

}  // namespace coterie
