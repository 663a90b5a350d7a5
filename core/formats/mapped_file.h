#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace coterie {

// A file mapped read-only for the lifetime of the object. Move-only; const after construction.
//
// A file that another program truncates while it is mapped cannot be caught; the model store is
// read-only and content-addressed for that reason.
class MappedFile {
 public:
  // kNotFound, kInvalidArgument (a folder or another non-file), kPermissionDenied, kDataLoss (empty
  // file) or kInternal, each naming the path.
  static absl::StatusOr<MappedFile> Open(absl::string_view path);

  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  ~MappedFile();

  absl::Span<const uint8_t> bytes() const { return {data_, static_cast<size_t>(size_)}; }
  int64_t size() const { return size_; }
  const std::string& path() const { return path_; }

  // Asks the system to begin reading the bytes. A hint: never fails and does not wait.
  void WillNeed(absl::Span<const uint8_t> range) const;

  // Reads the bytes into memory and maps their pages, so that later access does not wait. Where the
  // system cannot do it, later access reads them one page at a time instead.
  void Populate(absl::Span<const uint8_t> range) const;

 private:
  MappedFile(std::string path, const uint8_t* data, int64_t size)
      : path_(std::move(path)), data_(data), size_(size) {}

  void Advise(absl::Span<const uint8_t> range, int advice) const;

  std::string path_;
  const uint8_t* data_ = nullptr;
  int64_t size_ = 0;
};

}  // namespace coterie
