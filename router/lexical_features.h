#pragma once

// The features of the lexical tier: words, pairs of neighbouring words, and letters inside words.

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
  absl::string_view text;  // The word or pair; for letters the whole piece they stand in.
};

// Calls `visit` for each feature of a cut prompt, repeated ones repeatedly:
//   words    runs of letters, digits and underscores (any byte above 0x7f counts as a letter) in
//            ASCII lower case, and pairs of successive ones;
//   letters  3, 4 and 5 characters in a row of what white space separates, with a space before and
//            behind.
// Texts live until visit returns.
void ForEachFeature(absl::string_view cut, absl::FunctionRef<void(const TextFeature&)> visit);

}  // namespace coterie
