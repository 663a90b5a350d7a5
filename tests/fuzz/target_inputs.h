#pragma once

// What fuzz targets make of their bytes.

#include <unistd.h>

#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

#include "core/base/check.h"
#include "core/formats/gguf_file.h"
#include "core/formats/tokenizer.h"
#include "tests/fuzz/gguf_draft.h"
#include "tests/fuzz/malformed_file.h"

#include <sys/mman.h>

namespace coterie::testing {

using Seeds = std::vector<std::string>;

// Long enough for every rule of the parsers, short enough for many runs a second.
inline constexpr size_t kMaxSeedBytes = 1 << 16;

inline Seeds SeedsOf(const std::vector<MalformedFile>& malformed, Seeds valid) {
  for (const MalformedFile& file : malformed) {
    if (file.bytes.size() <= kMaxSeedBytes) valid.push_back(file.bytes);
  }
  return valid;
}

inline absl::Span<const uint8_t> AsBytes(absl::string_view text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

// Reads every byte, so that a sanitizer sees a span that reaches too far.
inline void Touch(absl::Span<const uint8_t> bytes) {
  volatile uint32_t sum = std::accumulate(bytes.begin(), bytes.end(), 0u);
  static_cast<void>(sum);
}

// Bytes as a file that has a path but no place on disk.
class MemoryFile {
 public:
  explicit MemoryFile(absl::string_view bytes) : fd_(::memfd_create("fuzz", MFD_CLOEXEC)) {
    COTERIE_CHECK(
        fd_ >= 0 && ::write(fd_, bytes.data(), bytes.size()) == static_cast<ssize_t>(bytes.size()),
        "memory holds a file");
  }
  ~MemoryFile() { ::close(fd_); }
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;

  std::string path() const { return absl::StrCat("/proc/self/fd/", fd_); }

 private:
  int fd_;
};

inline std::unique_ptr<const Tokenizer> TokenizerOf(const GgufDraft& model) {
  const std::string bytes = model.Bytes();
  const auto file = GgufFile::Parse(AsBytes(bytes), "tiny.gguf");
  COTERIE_CHECK(file.ok(), "a valid model is one");
  return *Tokenizer::FromGguf(**file);
}

}  // namespace coterie::testing
