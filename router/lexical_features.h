#pragma once

// The features of the lexical tier: words, runs of two and three, and letters.

#include <cstdint>
#include <string>

#include "absl/functional/function_ref.h"
#include "absl/strings/string_view.h"

namespace coterie {

enum class FeatureBlock : uint8_t { kWords, kLetters };
inline constexpr int kFeatureBlocks = 2;

struct TextFeature {
  uint32_t hash = 0;  // Of block, kind and text: stands for the feature in models.
  FeatureBlock block = FeatureBlock::kWords;
  absl::string_view text;  // The words; for letters the whole piece that they begin in.
};

// Calls `visit` for each feature of a cut prompt, repeated ones repeatedly:
//   words    runs of letters, digits and underscores (any byte above 0x7f counts as a letter) in
//            ASCII lower case, and two and three successive ones;
//   letters  2 to 5 characters in a row, with a space before and behind the whole.
// Texts live until visit returns.
void ForEachFeature(absl::string_view cut, absl::FunctionRef<void(const TextFeature&)> visit);

}  // namespace coterie
