#pragma once

// Strings that remember who wrote each byte of them.

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

#include "core/formats/text_piece.h"

namespace coterie::jinja {

// Where a run of text comes from. Text of the template itself is trusted; until it is written to
// the output its role is kNone, meaning "of whoever is being written about there".
struct Origin {
  bool trusted = true;
  Role role = Role::kNone;

  friend bool operator==(const Origin&, const Origin&) = default;
};

// A run of bytes of one origin. `end` is the offset one past its last byte.
struct Run {
  size_t end = 0;
  Origin origin;
};

// A string, UTF-8 by convention (bytes that are not count as one character each), made of runs.
// Invariant: runs are non-empty, adjacent runs differ, and the last one ends at size().
// A value type; thread-compatible.
class Text {
 public:
  Text() = default;
  explicit Text(absl::string_view bytes, Origin origin = {}) { Append(bytes, origin); }

  absl::string_view bytes() const { return bytes_; }
  size_t size() const { return bytes_.size(); }
  bool empty() const { return bytes_.empty(); }
  const std::vector<Run>& runs() const { return runs_; }
  Origin OriginAt(size_t offset) const;

  // Whether the template declared the text safe for HTML. Jinja then escapes what is joined to it
  // by `+`, which chat templates can only meet by accident, but do.
  bool markup() const { return markup_; }
  void set_markup(bool markup) { markup_ = markup; }

  void Append(absl::string_view bytes, Origin origin);
  void Append(const Text& other) { AppendRange(other, 0, other.size()); }
  // Appends bytes [begin, end) of `other`.
  void AppendRange(const Text& other, size_t begin, size_t end);

  // Bytes [begin, end), keeping origins and the markup flag.
  Text Substring(size_t begin, size_t end) const;

  // Gives every trusted byte whose role is still open the role `role`.
  void SettleRole(Role role);

  // Memory that the text holds, for work accounting.
  int64_t cost_bytes() const {
    return static_cast<int64_t>(bytes_.size() + runs_.size() * sizeof(Run)) + 32;
  }

 private:
  size_t RunIndexAt(size_t offset) const;

  std::string bytes_;
  std::vector<Run> runs_;
  bool markup_ = false;
};

}  // namespace coterie::jinja
