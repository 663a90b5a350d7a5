#pragma once

#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace coterie {

// Short passages about ordinary things, written for this project: what an adapter is to keep being
// able to read while it learns something else. Those at odd places are for replay, those at even
// places to measure with.
absl::Span<const absl::string_view> GeneralPassages();

}  // namespace coterie
