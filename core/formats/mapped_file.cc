#include "core/formats/mapped_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"

#include <sys/mman.h>
#include <sys/stat.h>

namespace coterie {
namespace {

absl::Status OpenError(absl::string_view path, int error) {
  const std::string message =
      absl::StrCat("cannot open file: path=", path, ": ", std::strerror(error));
  if (error == ENOENT || error == ENOTDIR) return absl::NotFoundError(message);
  if (error == EACCES || error == EPERM) return absl::PermissionDeniedError(message);
  return absl::InternalError(message);
}

}  // namespace

absl::StatusOr<MappedFile> MappedFile::Open(absl::string_view path) {
  std::string name(path);
  const int fd = open(name.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return OpenError(path, errno);
  struct stat info;
  absl::Status status;
  void* data = MAP_FAILED;
  if (fstat(fd, &info) != 0) {
    status = OpenError(path, errno);
  } else if (!S_ISREG(info.st_mode)) {
    status = absl::InvalidArgumentError(absl::StrCat("not a regular file: path=", path));
  } else if (info.st_size == 0) {
    status = absl::DataLossError(absl::StrCat("file is empty: path=", path));
  } else {
    data = mmap(nullptr, static_cast<size_t>(info.st_size), PROT_READ, MAP_SHARED, fd, 0);
    if (data == MAP_FAILED) status = OpenError(path, errno);
  }
  close(fd);
  if (!status.ok()) return status;
  return MappedFile(std::move(name), static_cast<const uint8_t*>(data), info.st_size);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)),
      data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) munmap(const_cast<uint8_t*>(data_), static_cast<size_t>(size_));
}

void MappedFile::WillNeed(absl::Span<const uint8_t> range) const { Advise(range, MADV_WILLNEED); }

void MappedFile::Populate(absl::Span<const uint8_t> range) const {
#ifdef MADV_POPULATE_READ
  Advise(range, MADV_POPULATE_READ);
#else
  Advise(range, MADV_WILLNEED);
#endif
}

void MappedFile::Advise(absl::Span<const uint8_t> range, int advice) const {
  const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const auto begin = reinterpret_cast<uintptr_t>(range.data()) & ~(page - 1);
  const auto end = reinterpret_cast<uintptr_t>(range.data()) + range.size();
  madvise(reinterpret_cast<void*>(begin), end - begin, advice);
}

}  // namespace coterie
