#pragma once

#include <string>

#include "absl/strings/string_view.h"

namespace coterie {

// Text of a file as an error message may show it: in single quotes, at most 80 bytes, everything
// but printable ASCII escaped. Messages stay short, on one line and UTF-8 whatever the file holds.
std::string Quote(absl::string_view text);

// The beginning of a message that quotes text of unknown length: at most 2000 bytes, cut between
// two characters.
absl::string_view ShortMessage(absl::string_view message);

}  // namespace coterie
