#include "core/base/write_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "absl/strings/str_cat.h"

#include <sys/stat.h>

namespace coterie {
namespace {

absl::Status FileError(absl::string_view what, const std::string& path, int error) {
  const std::string message = absl::StrCat(what, ": file=", path, ", error=", std::strerror(error));
  switch (error) {
    case ENOENT:
      return absl::NotFoundError(message);
    case EACCES:
    case EPERM:
    case EROFS:
      return absl::PermissionDeniedError(message);
    case ENOSPC:
    case EDQUOT:
      return absl::ResourceExhaustedError(message);
    default:
      return absl::InternalError(message);
  }
}

absl::Status WriteAll(int fd, absl::string_view bytes, const std::string& path) {
  while (!bytes.empty()) {
    const ssize_t n = ::write(fd, bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return FileError("cannot write", path, n < 0 ? errno : EIO);
    bytes.remove_prefix(static_cast<size_t>(n));
  }
  return absl::OkStatus();
}

}  // namespace

void SyncFolder(const std::string& folder) {
  const int fd = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return;
  ::fsync(fd);
  ::close(fd);
}

absl::Status WriteFileAtomically(absl::string_view path, absl::string_view bytes) {
  return WriteFileAtomically(path, absl::MakeConstSpan(&bytes, 1));
}

absl::Status WriteFileAtomically(absl::string_view path,
                                 absl::Span<const absl::string_view> pieces) {
  const std::string final_path(path);
  std::string part_path = absl::StrCat(path, ".XXXXXX");
  const int fd = ::mkostemp(part_path.data(), O_CLOEXEC);
  if (fd < 0) return FileError("cannot create", final_path, errno);
  absl::Status status;
  for (size_t i = 0; i < pieces.size() && status.ok(); ++i) {
    status = WriteAll(fd, pieces[i], final_path);
  }
  // mkostemp makes the file private; models are readable like any other file.
  if (status.ok() && ::fchmod(fd, 0644) != 0) status = FileError("cannot write", final_path, errno);
  if (status.ok() && ::fsync(fd) != 0) status = FileError("cannot write", final_path, errno);
  if (::close(fd) != 0 && status.ok()) status = FileError("cannot write", final_path, errno);
  if (status.ok() && std::rename(part_path.c_str(), final_path.c_str()) != 0) {
    status = FileError("cannot rename into place", final_path, errno);
  }
  if (!status.ok()) {
    ::unlink(part_path.c_str());
    return status;
  }
  const size_t slash = final_path.rfind('/');
  SyncFolder(slash == std::string::npos ? "." : final_path.substr(0, slash + 1));
  return absl::OkStatus();
}

}  // namespace coterie
