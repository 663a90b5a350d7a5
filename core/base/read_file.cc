#include "core/base/read_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"

#include "core/base/status_macros.h"

#include <sys/stat.h>

namespace coterie {
namespace {

absl::Status FileError(absl::string_view what, absl::string_view path, int error) {
  const std::string message = absl::StrCat(what, ": path=", path, ": ", std::strerror(error));
  if (error == ENOENT || error == ENOTDIR) return absl::NotFoundError(message);
  if (error == EACCES || error == EPERM) return absl::PermissionDeniedError(message);
  return absl::InternalError(message);
}

// Up to n bytes, fewer at the end of the file.
absl::Status ReadAll(int fd, absl::string_view path, std::string& bytes) {
  size_t n_read = 0;
  while (n_read < bytes.size()) {
    const ssize_t n = ::read(fd, bytes.data() + n_read, bytes.size() - n_read);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return FileError("cannot read file", path, errno);
    if (n == 0) break;
    n_read += static_cast<size_t>(n);
  }
  bytes.resize(n_read);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<int> OpenRegularFile(absl::string_view path) {
  const std::string name(path);
  if (name.find('\0') != std::string::npos) {
    return absl::InvalidArgumentError("a path holds a zero byte");
  }
  // Without O_NONBLOCK, opening a pipe waits for its writer, perhaps for ever.
  const int fd = ::open(name.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return FileError("cannot open file", path, errno);
  struct stat info;
  if (::fstat(fd, &info) == 0 && S_ISREG(info.st_mode)) return fd;
  ::close(fd);
  return absl::InvalidArgumentError(absl::StrCat("not a regular file: path=", path));
}

absl::StatusOr<std::string> ReadSmallFile(absl::string_view path, int64_t max_bytes) {
  COTERIE_ASSIGN_OR_RETURN(const int fd, OpenRegularFile(path));
  struct stat info;
  absl::Status status;
  std::string bytes;
  if (::fstat(fd, &info) != 0) {
    status = FileError("cannot read file", path, errno);
  } else if (info.st_size > max_bytes) {
    status = absl::DataLossError(absl::StrCat("file is too long: path=", path,
                                              ", bytes=", info.st_size, ", allowed=", max_bytes));
  } else {
    bytes.resize(static_cast<size_t>(info.st_size));
    status = ReadAll(fd, path, bytes);
  }
  ::close(fd);
  if (!status.ok()) return status;
  return bytes;
}

}  // namespace coterie
