#pragma once

#include <string>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace coterie {

// Short passages about ordinary things, written for this project: what an adapter rehearses while
// it learns something else, so that it goes on reading as its base does. One a line.
std::string GeneralText();

// What forgetting is measured with: texts of other kinds than those (entries of an encyclopedia,
// news, talk, instructions, forms, code), which nobody rehearses.
absl::Span<const absl::string_view> ProbePassages();

}  // namespace coterie
