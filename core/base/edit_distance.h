#pragma once

#include <cstddef>

#include "absl/strings/string_view.h"

namespace coterie {

// Number of single-byte changes that make one text of another (Levenshtein 1966). Takes time in
// proportion to the product of the lengths, memory to that of b.
size_t EditDistance(absl::string_view a, absl::string_view b);

}  // namespace coterie
