#pragma once

// The part of a prompt that the router reads. The rule belongs to the fitted models: the training
// script (router/training/prompt_text.py) cuts the same way.

#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"

namespace coterie {

inline constexpr int64_t kHeadWords = 60;
inline constexpr int64_t kTailWords = 25;
inline constexpr int64_t kHeadBytes = 2048;
inline constexpr int64_t kTailBytes = 1024;

// Returns the first 60 and the last 25 words of a prompt, joined by single spaces, and of those at
// most the first 2048 and the last 1024 bytes, as valid UTF-8. Words are what ASCII white space
// separates.
//
// What a prompt asks for stands at its ends; the middle is material. Cutting it raises accuracy on
// prompts of unseen sources. Bytes that are not UTF-8 are dropped, so that any input is classified
// by what can be read of it. The result is empty exactly if nothing can be read. Takes time linear
// in the prompt and at most a few kilobytes of memory. Thread-safe.
std::string CutPrompt(absl::string_view prompt);

// Drops every byte that is not part of a well-formed UTF-8 character.
std::string ValidUtf8(absl::string_view text);

}  // namespace coterie
