#include "runtime/prefix_store.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <system_error>
#include <tuple>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

#include "core/base/read_file.h"
#include "core/base/status_macros.h"
#include "core/base/write_file.h"
#include "lora/record_cipher.h"

#include <sys/file.h>
#include <sys/stat.h>

namespace coterie {
namespace {

namespace fs = std::filesystem;

constexpr absl::string_view kSuffix = ".kv";
constexpr int64_t kMaxEraBytes = 256;
// What a killed writer left beside a block's place.
constexpr absl::Duration kLeftoverAge = absl::Minutes(10);
// Between the uses of a block and the one after it, so that the end of a chain is the older.
constexpr absl::Duration kUseStep = absl::Microseconds(1);

absl::Status SystemError(absl::string_view what, const std::string& path, int error) {
  const std::string message = absl::StrCat(what, ": path=", path, ": ", std::strerror(error));
  if (error == ENOENT) return absl::NotFoundError(message);
  return error == ENOSPC || error == EDQUOT ? absl::ResourceExhaustedError(message)
                                            : absl::UnavailableError(message);
}

struct BlockFile {
  std::string path;
  int64_t bytes = 0;
  absl::Time used;
  bool is_leftover = false;  // Of a write that did not end.
};

std::vector<BlockFile> FilesOf(const std::string& folder) {
  std::vector<BlockFile> files;
  std::error_code error;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    const std::string name = it->path().filename().string();
    BlockFile file;
    file.path = it->path().string();
    file.is_leftover = !absl::EndsWith(name, kSuffix);
    if (file.is_leftover && !absl::StrContains(name, absl::StrCat(kSuffix, "."))) continue;
    struct stat info;
    if (::lstat(file.path.c_str(), &info) != 0) continue;
    file.bytes = info.st_size;
    file.used = absl::TimeFromTimespec(info.st_mtim);
    files.push_back(std::move(file));
  }
  return files;
}

}  // namespace

// The right to change the folder, which it makes: for one process alone, or with other writers.
class PrefixStore::Lock {
 public:
  static absl::StatusOr<Lock> Take(const std::string& folder, int kind) {
    if (::mkdir(folder.c_str(), 0700) != 0 && errno != EEXIST) {
      return SystemError("cannot make the folder of prefixes", folder, errno);
    }
    const std::string path = folder + "/lock";
    Lock lock(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
    if (lock.fd_ < 0) return SystemError("cannot lock the folder of prefixes", path, errno);
    while (::flock(lock.fd_, kind) != 0) {
      if (errno != EINTR) return SystemError("cannot lock the folder of prefixes", path, errno);
    }
    return lock;
  }

  Lock(Lock&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Lock& operator=(Lock&&) = delete;
  ~Lock() {
    if (fd_ >= 0) ::close(fd_);
  }

 private:
  explicit Lock(int fd) : fd_(fd) {}
  int fd_;
};

PrefixStore::PrefixStore(std::string folder, int64_t max_bytes, std::string key)
    : folder_(std::move(folder)), max_bytes_(max_bytes), key_(std::move(key)) {}

PrefixStore::~PrefixStore() { WipeKey(key_); }

std::string PrefixStore::PathOf(absl::string_view name) const {
  return absl::StrCat(folder_, "/", name, kSuffix);
}

bool PrefixStore::Has(absl::string_view name) const {
  return is_on() && ::access(PathOf(name).c_str(), R_OK) == 0;
}

bool PrefixStore::Read(const BlockPlace& place, uint8_t* block) {
  if (!is_on()) return false;
  const std::string path = PathOf(place.name);
  const absl::StatusOr<std::string> file = ReadSmallFile(path, BlockFileBytes(place, key_));
  if (absl::IsNotFound(file.status())) return false;
  const absl::Status status = file.ok() ? ReadBlockFile(*file, place, key_, block) : file.status();
  if (status.ok()) return true;
  ++n_damaged_;
  ::unlink(path.c_str());
  return false;
}

absl::Status PrefixStore::Write(absl::string_view name, absl::string_view file,
                                absl::string_view era) {
  absl::Status status = [&]() -> absl::Status {
    COTERIE_ASSIGN_OR_RETURN(const Lock lock, Lock::Take(folder_, LOCK_SH));
    if (Era() != era) return absl::AbortedError("an interaction was forgotten meanwhile");
    COTERIE_RETURN_IF_ERROR(MakeRoom(static_cast<int64_t>(file.size())));
    return WriteFileAtomically(PathOf(name), file);
  }();
  if (!status.ok()) ++n_failures_;
  return status;
}

absl::Status PrefixStore::MakeRoom(int64_t bytes) {
  if (bytes > max_bytes_) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "a block is larger than all prefixes on disk may be: bytes=", bytes, ", max=", max_bytes_));
  }
  std::vector<BlockFile> files = FilesOf(folder_);
  std::sort(files.begin(), files.end(), [](const BlockFile& a, const BlockFile& b) {
    return std::tie(a.used, a.path) < std::tie(b.used, b.path);
  });
  int64_t held_bytes = 0;
  for (const BlockFile& file : files) held_bytes += file.bytes;
  const absl::Time leftovers_before = absl::Now() - kLeftoverAge;
  for (const BlockFile& file : files) {
    const bool is_stale = file.is_leftover && file.used < leftovers_before;
    const bool is_too_much = !file.is_leftover && held_bytes + bytes > max_bytes_;
    // Another process may have been faster, which makes no difference.
    if ((is_stale || is_too_much) && ::unlink(file.path.c_str()) == 0) held_bytes -= file.bytes;
  }
  return absl::OkStatus();
}

void PrefixStore::NoteUse(const std::vector<std::string>& names) {
  absl::Time used = absl::Now();
  for (const std::string& name : names) {
    const timespec time = absl::ToTimespec(used);
    const timespec times[] = {time, time};
    ::utimensat(AT_FDCWD, PathOf(name).c_str(), times, AT_SYMLINK_NOFOLLOW);
    used -= kUseStep;
  }
}

std::string PrefixStore::Era() const {
  return ReadSmallFile(folder_ + "/forgotten", kMaxEraBytes).value_or("");
}

absl::Status PrefixStore::Forget() {
  const absl::StatusOr<Lock> lock = Lock::Take(folder_, LOCK_EX);
  std::error_code ignored;
  if (!lock.ok() && !fs::exists(folder_, ignored)) return absl::OkStatus();  // Nor can be made.
  COTERIE_RETURN_IF_ERROR(lock.status());
  // First, for who was about to write is to know of it whatever comes.
  COTERIE_RETURN_IF_ERROR(
      WriteFileAtomically(folder_ + "/forgotten", absl::BytesToHexString(NewSealKey())));
  absl::Status status;
  for (const BlockFile& file : FilesOf(folder_)) {
    if (::unlink(file.path.c_str()) == 0 || errno == ENOENT) continue;
    status = SystemError("cannot remove a kept prefix", file.path, errno);
  }
  SyncFolder(folder_);
  return status;
}

}  // namespace coterie
