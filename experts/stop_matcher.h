#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace coterie {

// Lets a streamed answer through until a stop string appears, wherever the pieces of it are cut.
// What comes out is whole, valid UTF-8: a character that is not complete waits, and bytes that
// belong to no character become U+FFFD, one for each maximal subpart, as Python's
// decode(errors="replace") does. Thread-compatible.
//
// All output together is the input up to the first stop string, without it, however the input was
// cut. First is the one that ends first; of two that end together, the one that begins first.
class StopMatcher {
 public:
  // No stop strings: only UTF-8 is watched. kInvalidArgument for an empty stop string, one that is
  // not UTF-8, one over 1024 bytes, or more than 64 of them.
  static absl::StatusOr<StopMatcher> Create(absl::Span<const std::string> stops);

  // Takes the next bytes and returns what can be shown now: everything but a tail that might be the
  // beginning of a stop string or of a character. Empty once stopped.
  std::string Append(absl::string_view text);

  // The answer ended by itself: returns what was held back and makes ready for another answer.
  // After a stop there is nothing to return.
  std::string Flush();

  bool stopped() const { return stop_.has_value(); }
  // The stop string that was found, or null.
  const std::string* stop() const { return stopped() ? &stops_[*stop_] : nullptr; }

 private:
  explicit StopMatcher(std::vector<std::string> stops) : stops_(std::move(stops)) {}

  size_t HeldBytes() const;

  std::vector<std::string> stops_;
  std::string bytes_;  // The beginning of a character.
  std::string text_;   // Valid UTF-8 that was not returned yet.
  std::optional<size_t> stop_;
};

}  // namespace coterie
