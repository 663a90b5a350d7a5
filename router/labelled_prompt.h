#pragma once

#include <string>

namespace coterie {

// A prompt and the domain it belongs to.
struct LabelledPrompt {
  std::string text;
  std::string label;
  // Where the prompt comes from (a data set, a user); may be empty. Calibration keeps rows of one
  // source together, because a model knows the style of a source that it was fitted on.
  std::string source;
};

}  // namespace coterie
