#include "lora/adapter_store.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <optional>
#include <system_error>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "nlohmann/json.hpp"

#include "core/base/quote.h"
#include "core/base/read_file.h"
#include "core/base/status_macros.h"
#include "core/base/write_file.h"
#include "core/formats/json_file.h"
#include "core/formats/mapped_file.h"
#include "core/formats/safetensors_file.h"
#include "lora/adapter_files.h"
#include "lora/sha256.h"

#include <sys/file.h>
#include <sys/stat.h>

namespace coterie {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr char kCurrentFile[] = "current";
constexpr char kLedgerFile[] = "ledger.json";
constexpr int64_t kMaxLedgerBytes = 16 << 20;
constexpr int64_t kMaxVersion = 999999;

absl::Status SystemError(absl::string_view what, const std::string& path, int error) {
  const std::string message = absl::StrCat(what, ": path=", path, ", error=", strerror(error));
  if (error == ENOENT) return absl::NotFoundError(message);
  if (error == EACCES || error == EPERM || error == EROFS) {
    return absl::PermissionDeniedError(message);
  }
  if (error == ENOSPC || error == EDQUOT) return absl::ResourceExhaustedError(message);
  return absl::InternalError(message);
}

std::string VersionFolder(int64_t version) { return absl::StrFormat("v%04d", version); }

std::optional<int64_t> ParseVersionFolder(const std::string& name) {
  int64_t version = 0;
  if (!absl::StartsWith(name, "v") || !absl::SimpleAtoi(name.substr(1), &version) || version < 1 ||
      version > kMaxVersion || VersionFolder(version) != name) {
    return std::nullopt;
  }
  return version;
}

absl::StatusOr<std::string> HashOfFile(const std::string& path) {
  COTERIE_ASSIGN_OR_RETURN(const MappedFile file, MappedFile::Open(path));
  return Sha256Of({reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()});
}

// A JSON object as its maker wrote it, or an empty one.
absl::StatusOr<Json> ObjectOf(const std::string& text, absl::string_view what) {
  if (text.empty()) return Json::object();
  return ParseJsonObject(text, what);
}

absl::StatusOr<std::string> LedgerJson(const AdapterLedger& ledger, const std::string& folder) {
  Json json = {{"interactions", ledger.interactions}};
  COTERIE_ASSIGN_OR_RETURN(json["trainer"], ObjectOf(ledger.trainer, "ledger.trainer"));
  COTERIE_ASSIGN_OR_RETURN(json["metrics"], ObjectOf(ledger.metrics, "ledger.metrics"));
  for (const absl::string_view file : {kAdapterConfigFile, kAdapterTensorsFile}) {
    COTERIE_ASSIGN_OR_RETURN(json["files"][std::string(file)],
                             HashOfFile(absl::StrCat(folder, "/", file)));
  }
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

absl::Status Damaged(absl::string_view what, const std::string& path) {
  return absl::DataLossError(absl::StrCat(what, ": file=", path));
}

// The ledger and the hashes it states of the files beside it.
absl::StatusOr<std::pair<AdapterLedger, Json>> ReadLedger(const std::string& folder) {
  const std::string path = absl::StrCat(folder, "/", kLedgerFile);
  COTERIE_ASSIGN_OR_RETURN(const Json json, ReadJsonFile(path, kMaxLedgerBytes));
  AdapterLedger ledger;
  const Json interactions = json.value("interactions", Json());
  if (!interactions.is_array()) return Damaged("the ledger lists no interactions", path);
  for (const Json& id : interactions) {
    if (!id.is_string()) return Damaged("an interaction in the ledger is no text", path);
    ledger.interactions.push_back(id.get<std::string>());
  }
  const Json files = json.value("files", Json());
  if (!files.is_object()) return Damaged("the ledger states no files", path);
  const auto text_of = [&json](const char* key) {
    const Json value = json.value(key, Json::object());
    return value.dump(-1, ' ', false, Json::error_handler_t::replace);
  };
  ledger.trainer = text_of("trainer");
  ledger.metrics = text_of("metrics");
  return std::pair(std::move(ledger), files);
}

bool IsHidden(const fs::path& path) { return absl::StartsWith(path.filename().string(), "."); }

// What a killed writer left; called by whoever holds the adapter's lock.
void RemoveLeftovers(const std::string& folder) {
  std::error_code error;
  std::vector<fs::path> leftovers;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    const std::string name = it->path().filename().string();
    if (absl::StartsWith(name, ".new-") || absl::StartsWith(name, ".removed-") ||
        absl::StartsWith(name, absl::StrCat(kCurrentFile, "."))) {
      leftovers.push_back(it->path());
    }
  }
  for (const fs::path& path : leftovers) fs::remove_all(path, error);
}

}  // namespace

std::string AdapterLabel(absl::string_view name, int64_t version) {
  return absl::StrCat(name, "@", version);
}

std::string StoredAdapter::label() const { return AdapterLabel(adapter.name, version); }

AdapterStore::AdapterStore(absl::string_view home, StepHook on_step)
    : root_(absl::StrCat(home, "/adapters")), on_step_(std::move(on_step)) {}

std::string AdapterStore::AdapterFolder(absl::string_view name) const {
  return absl::StrCat(root_, "/", name);
}

std::string AdapterStore::FolderOf(absl::string_view name, int64_t version) const {
  return absl::StrCat(AdapterFolder(name), "/", VersionFolder(version));
}

void AdapterStore::Step(absl::string_view step) const {
  if (on_step_) on_step_(step);
}

// The turn of one writer: an exclusive lock on a file beside the adapter's folder, which the kernel
// gives back with the process.
class AdapterStore::Change {
 public:
  static absl::StatusOr<Change> Begin(const AdapterStore& store, absl::string_view name) {
    COTERIE_RETURN_IF_ERROR(CheckAdapterName(name));
    std::error_code error;
    fs::create_directories(store.root_, error);
    if (error) return SystemError("cannot make the folder", store.root_, error.value());
    const std::string path = absl::StrCat(store.root_, "/.", name, ".lock");
    Change change(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644));
    if (change.fd_ < 0) return SystemError("cannot change the adapter", path, errno);
    while (::flock(change.fd_, LOCK_EX) != 0) {
      if (errno != EINTR) return SystemError("cannot change the adapter", path, errno);
    }
    RemoveLeftovers(store.AdapterFolder(name));
    return change;
  }

  Change(Change&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Change& operator=(Change&&) = delete;
  ~Change() {
    if (fd_ >= 0) ::close(fd_);
  }

 private:
  explicit Change(int fd) : fd_(fd) {}
  int fd_;
};

absl::StatusOr<std::vector<int64_t>> AdapterStore::VersionsOf(absl::string_view name) const {
  COTERIE_RETURN_IF_ERROR(CheckAdapterName(name));
  std::error_code error;
  std::vector<int64_t> versions;
  const std::string folder = AdapterFolder(name);
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    if (const auto version = ParseVersionFolder(it->path().filename().string())) {
      versions.push_back(*version);
    }
  }
  if (error) return SystemError("there is no such adapter", folder, error.value());
  std::sort(versions.begin(), versions.end());
  return versions;
}

absl::StatusOr<int64_t> AdapterStore::Publish(const Adapter& adapter, const AdapterLedger& ledger) {
  COTERIE_ASSIGN_OR_RETURN(const Change change, Change::Begin(*this, adapter.name));
  const std::string folder = AdapterFolder(adapter.name);
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) return SystemError("cannot make the folder", folder, error.value());
  SyncFolder(root_);
  COTERIE_ASSIGN_OR_RETURN(const std::vector<int64_t> versions, VersionsOf(adapter.name));
  const int64_t version = versions.empty() ? 1 : versions.back() + 1;
  if (version > kMaxVersion) {
    return absl::ResourceExhaustedError(absl::StrCat("the adapter has no version left: ", folder));
  }
  std::string fresh = absl::StrCat(folder, "/.new-XXXXXX");
  if (::mkdtemp(fresh.data()) == nullptr) return SystemError("cannot make a folder", fresh, errno);
  ::chmod(fresh.c_str(), 0755);
  Step("folder made");
  const auto write = [&]() -> absl::Status {
    COTERIE_RETURN_IF_ERROR(WritePeftAdapter(adapter, fresh));
    Step("files written");
    COTERIE_ASSIGN_OR_RETURN(const std::string text, LedgerJson(ledger, fresh));
    COTERIE_RETURN_IF_ERROR(WriteFileAtomically(absl::StrCat(fresh, "/", kLedgerFile), text));
    Step("ledger written");
    const std::string place = FolderOf(adapter.name, version);
    if (std::rename(fresh.c_str(), place.c_str()) != 0) {
      return SystemError("cannot rename into place", place, errno);
    }
    SyncFolder(folder);
    return absl::OkStatus();
  };
  if (absl::Status status = write(); !status.ok()) {
    fs::remove_all(fresh, error);
    return status;
  }
  Step("version in place");
  COTERIE_RETURN_IF_ERROR(
      WriteFileAtomically(absl::StrCat(folder, "/", kCurrentFile), absl::StrCat(version, "\n")));
  Step("current");
  return version;
}

absl::StatusOr<int64_t> AdapterStore::CurrentVersion(absl::string_view name) const {
  COTERIE_RETURN_IF_ERROR(CheckAdapterName(name));
  const std::string path = absl::StrCat(AdapterFolder(name), "/", kCurrentFile);
  const absl::StatusOr<std::string> text = ReadSmallFile(path, 64);
  if (absl::IsNotFound(text.status())) {
    return absl::NotFoundError(absl::StrCat("there is no adapter ", Quote(name), ": file=", path));
  }
  COTERIE_RETURN_IF_ERROR(text.status());
  int64_t version = 0;
  if (!absl::SimpleAtoi(*text, &version) || version < 1 || version > kMaxVersion) {
    return Damaged("it names no version", path);
  }
  return version;
}

absl::StatusOr<AdapterLedger> AdapterStore::CheckedLedger(const std::string& folder) const {
  COTERIE_ASSIGN_OR_RETURN(auto ledger, ReadLedger(folder));
  for (const absl::string_view file : {kAdapterConfigFile, kAdapterTensorsFile}) {
    const std::string path = absl::StrCat(folder, "/", file);
    COTERIE_ASSIGN_OR_RETURN(const std::string hash, HashOfFile(path));
    if (ledger.second.value(std::string(file), Json()) != hash) {
      return Damaged("the file is not the one that was published", path);
    }
  }
  return std::move(ledger.first);
}

absl::StatusOr<StoredAdapter> AdapterStore::Load(absl::string_view name, int64_t version) const {
  COTERIE_RETURN_IF_ERROR(CheckAdapterName(name));
  const std::string folder = FolderOf(name, version);
  std::error_code error;
  if (!fs::is_directory(folder, error)) {
    const absl::StatusOr<std::vector<int64_t>> versions = VersionsOf(name);
    COTERIE_RETURN_IF_ERROR(versions.status());
    return absl::NotFoundError(
        absl::StrCat("there is no version ", version, " of adapter ", Quote(name),
                     "; there are: ", absl::StrJoin(*versions, ", "), ": path=", folder));
  }
  StoredAdapter stored;
  stored.version = version;
  COTERIE_ASSIGN_OR_RETURN(stored.ledger, CheckedLedger(folder));
  COTERIE_ASSIGN_OR_RETURN(stored.adapter, ReadPeftAdapter(folder));
  stored.adapter.name = std::string(name);
  return stored;
}

absl::StatusOr<AdapterLedger> AdapterStore::Ledger(absl::string_view name, int64_t version) const {
  COTERIE_RETURN_IF_ERROR(CheckAdapterName(name));
  COTERIE_ASSIGN_OR_RETURN(auto ledger, ReadLedger(FolderOf(name, version)));
  return std::move(ledger.first);
}

absl::StatusOr<StoredAdapter> AdapterStore::Current(absl::string_view name) const {
  const absl::StatusOr<int64_t> current = CurrentVersion(name);
  if (!current.ok() && current.status().code() != absl::StatusCode::kDataLoss) {
    return current.status();
  }
  absl::Status trouble = current.status();
  if (current.ok()) {
    absl::StatusOr<StoredAdapter> stored = Load(name, *current);
    if (stored.ok()) return stored;
    trouble = stored.status();
  }
  COTERIE_ASSIGN_OR_RETURN(std::vector<int64_t> versions, VersionsOf(name));
  for (; !versions.empty(); versions.pop_back()) {
    if (current.ok() && versions.back() >= *current) continue;
    absl::StatusOr<StoredAdapter> stored = Load(name, versions.back());
    if (!stored.ok()) continue;
    stored->problem = absl::StrCat("adapter ", name, " is served in version ", stored->version,
                                   " because its current one cannot be read: ", trouble.message());
    return stored;
  }
  return trouble;
}

absl::StatusOr<int64_t> AdapterStore::ServedBytes(absl::string_view name, int64_t version) const {
  COTERIE_RETURN_IF_ERROR(CheckAdapterName(name));
  const std::string path = absl::StrCat(FolderOf(name, version), "/", kAdapterTensorsFile);
  COTERIE_ASSIGN_OR_RETURN(const auto file, SafetensorsFile::Open(path));
  int64_t bytes = 0;
  for (const absl::string_view tensor_name : file->TensorNames()) {
    COTERIE_ASSIGN_OR_RETURN(const SafetensorsTensor tensor, file->Find(tensor_name));
    bytes += tensor.n_elements() * static_cast<int64_t>(sizeof(uint16_t));
  }
  return bytes;
}

absl::Status AdapterStore::Rollback(absl::string_view name, int64_t version) {
  COTERIE_RETURN_IF_ERROR(Load(name, version).status());
  COTERIE_ASSIGN_OR_RETURN(const Change change, Change::Begin(*this, name));
  return WriteFileAtomically(absl::StrCat(AdapterFolder(name), "/", kCurrentFile),
                             absl::StrCat(version, "\n"));
}

absl::Status AdapterStore::RemoveVersion(absl::string_view name, int64_t version) {
  COTERIE_ASSIGN_OR_RETURN(const Change change, Change::Begin(*this, name));
  const absl::StatusOr<int64_t> current = CurrentVersion(name);
  if (current.ok() && *current == version) {
    return absl::FailedPreconditionError(
        absl::StrCat("the version is in use; roll back to another one first, or remove the "
                     "adapter: ",
                     AdapterLabel(name, version)));
  }
  const std::string folder = FolderOf(name, version);
  const std::string gone = absl::StrCat(AdapterFolder(name), "/.removed-", VersionFolder(version));
  if (std::rename(folder.c_str(), gone.c_str()) != 0) {
    return SystemError("cannot remove the version", folder, errno);
  }
  Step("version hidden");
  std::error_code error;
  fs::remove_all(gone, error);
  return error ? SystemError("cannot remove the version", gone, error.value()) : absl::OkStatus();
}

absl::Status AdapterStore::Remove(absl::string_view name) {
  COTERIE_ASSIGN_OR_RETURN(const Change change, Change::Begin(*this, name));
  const std::string folder = AdapterFolder(name);
  // Hidden by one rename, then deleted.
  const std::string gone = absl::StrCat(root_, "/.removed-", name);
  std::error_code error;
  fs::remove_all(gone, error);
  if (std::rename(folder.c_str(), gone.c_str()) != 0) {
    return SystemError("there is no such adapter", folder, errno);
  }
  SyncFolder(root_);
  Step("adapter hidden");
  fs::remove_all(gone, error);
  return error ? SystemError("cannot remove the adapter", gone, error.value()) : absl::OkStatus();
}

absl::StatusOr<AdapterSummary> AdapterStore::Summarize(const std::string& name) const {
  AdapterSummary summary;
  summary.name = name;
  summary.current = CurrentVersion(name).value_or(0);
  COTERIE_ASSIGN_OR_RETURN(const std::vector<int64_t> versions, VersionsOf(name));
  for (const int64_t version : versions) {
    AdapterVersionSummary one;
    one.version = version;
    const std::string folder = FolderOf(name, version);
    const std::string tensors = absl::StrCat(folder, "/", kAdapterTensorsFile);
    const auto ledger = ReadLedger(folder);
    const auto base = ReadPeftIdentity(folder);
    std::error_code error;
    one.file_bytes = static_cast<int64_t>(fs::file_size(tensors, error));
    if (error) one.file_bytes = 0;
    if (ledger.ok()) one.n_interactions = static_cast<int64_t>(ledger->first.interactions.size());
    one.problem = std::string((!ledger.ok() ? ledger.status() : base.status()).message());
    if (base.ok() && version <= summary.current) summary.base = *base;
    summary.versions.push_back(std::move(one));
  }
  return summary;
}

absl::StatusOr<std::vector<AdapterSummary>> AdapterStore::List() const {
  std::vector<AdapterSummary> adapters;
  std::error_code error;
  if (!fs::exists(root_, error) && !error) return adapters;
  std::vector<std::string> names;
  for (fs::directory_iterator it(root_, error), end; !error && it != end; it.increment(error)) {
    if (!IsHidden(it->path())) names.push_back(it->path().filename().string());
  }
  if (error) return SystemError("the adapters cannot be read", root_, error.value());
  std::sort(names.begin(), names.end());
  for (const std::string& name : names) {
    absl::StatusOr<AdapterSummary> summary = Summarize(name);
    if (summary.ok()) adapters.push_back(*std::move(summary));
  }
  return adapters;
}

}  // namespace coterie
