#pragma once

// What the fuzzers run: each target reads hostile bytes as one format and uses what it got. A
// target returns for every input; what is wrong shows itself as a crash, a failed COTERIE_CHECK or
// a report of a sanitizer.

#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace coterie::testing {

struct FuzzTarget {
  const char* name;
  void (*run)(absl::string_view bytes);
  std::vector<std::string> (*seeds)();
};

const std::vector<FuzzTarget>& FuzzTargets();

// Those of them in learning_targets.cc.
std::vector<FuzzTarget> LearningTargets();

}  // namespace coterie::testing
