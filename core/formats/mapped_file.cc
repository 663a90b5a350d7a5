#include "core/formats/mapped_file.h"

#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"

#include "core/base/read_file.h"
#include "core/base/status_macros.h"

#include <sys/mman.h>
#include <sys/stat.h>

namespace coterie {
namespace {

absl::Status MapError(absl::string_view path, int error) {
  return absl::InternalError(
      absl::StrCat("cannot map file: path=", path, ": ", std::strerror(error)));
}

}  // namespace

absl::StatusOr<MappedFile> MappedFile::Open(absl::string_view path) {
  COTERIE_ASSIGN_OR_RETURN(const int fd, OpenRegularFile(path));
  struct stat info;
  absl::Status status;
  void* data = MAP_FAILED;
  if (fstat(fd, &info) != 0) {
    status = MapError(path, errno);
  } else if (info.st_size == 0) {
    status = absl::DataLossError(absl::StrCat("file is empty: path=", path));
  } else {
    data = mmap(nullptr, static_cast<size_t>(info.st_size), PROT_READ, MAP_SHARED, fd, 0);
    if (data == MAP_FAILED) status = MapError(path, errno);
  }
  close(fd);
  if (!status.ok()) return status;
  return MappedFile(std::string(path), static_cast<const uint8_t*>(data), info.st_size);
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
