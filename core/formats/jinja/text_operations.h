#pragma once

// Python's string methods on texts that remember origins. Every byte taken over keeps its origin.
// Those that can enlarge a text charge the work for it.

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

#include "core/formats/jinja/text.h"
#include "core/formats/jinja/work.h"

namespace coterie::jinja {

enum class Side : uint8_t { kLeft, kRight, kBoth };
enum class LetterCase : uint8_t { kLower, kUpper, kCapitalized, kTitle };

// Drops whitespace, or where `characters` is given the characters in it, from the ends.
Text Strip(const Text& text, Side side, const Text* characters);

// Offset of `needle` in [from, end), or npos. Linear in the sizes.
size_t FindText(absl::string_view text, absl::string_view needle, size_t from);

// At most max_splits cuts if that is not negative. A null separator cuts at runs of whitespace.
// Requires a non-empty separator.
std::vector<Text> Split(const Text& text, const Text* separator, int64_t max_splits,
                        bool from_right);
std::vector<Text> SplitLines(const Text& text, bool keep_ends);

// Replaces at most max_count occurrences if that is not negative.
absl::StatusOr<Text> Replace(const Text& text, const Text& from, const Text& to, int64_t max_count,
                             Work& work);
absl::StatusOr<Text> Repeat(const Text& text, int64_t count, Work& work);
absl::StatusOr<Text> Join(const std::vector<Text>& parts, const Text& separator, Work& work);

// kTitle follows Jinja's filter: words begin after whitespace, hyphens and opening brackets.
Text ChangeCase(const Text& text, LetterCase letter_case);

// Jinja's filter `indent`.
absl::StatusOr<Text> Indent(const Text& text, const Text& indentation, bool first, bool blank,
                            Work& work);

// HTML escaping; the result is markup. Markup stays as it is.
absl::StatusOr<Text> EscapeHtml(const Text& text, Work& work);

// a + b, where the operand that is not markup is escaped if the other is.
absl::StatusOr<Text> Add(const Text& a, const Text& b, Work& work);

// Python's text[start:stop:step] over characters; null parts are left out. Requires *step != 0.
Text SliceText(const Text& text, const int64_t* start, const int64_t* stop, int64_t step);

// Python's slice positions in a sequence of n elements.
std::vector<int64_t> SlicePositions(int64_t n, const int64_t* start, const int64_t* stop,
                                    int64_t step);

}  // namespace coterie::jinja
