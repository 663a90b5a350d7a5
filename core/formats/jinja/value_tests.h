#pragma once

#include "absl/strings/string_view.h"

namespace coterie::jinja {

// Whether `name` is a test that ApplyTest knows.
bool IsKnownTest(absl::string_view name);

}  // namespace coterie::jinja
