#include "core/formats/jinja/text_operations.h"

#include <string.h>

#include <algorithm>
#include <string>
#include <utility>

#include "core/base/status_macros.h"
#include "core/formats/jinja/characters.h"

namespace coterie::jinja {
namespace {

bool IsStripped(uint32_t code, const std::vector<uint32_t>* codes) {
  if (codes == nullptr) return IsSpace(code);
  return std::find(codes->begin(), codes->end(), code) != codes->end();
}

std::vector<Text> SplitAtSpace(const Text& text, int64_t max_splits, bool from_right) {
  const absl::string_view bytes = text.bytes();
  std::vector<std::pair<size_t, size_t>> words;
  for (size_t i = 0; i < bytes.size();) {
    const Character character = CharacterAt(bytes, i);
    const size_t begin = i;
    i += character.n_bytes;
    if (IsSpace(character.code)) continue;
    if (!words.empty() && words.back().second == begin) {
      words.back().second = i;
    } else {
      words.emplace_back(begin, i);
    }
  }
  const size_t n_cuts = max_splits < 0 ? words.size() : static_cast<size_t>(max_splits);
  if (words.size() > n_cuts + 1) {
    // What is left uncut keeps the whitespace at its outer end, as in Python.
    if (from_right) {
      const size_t n_rest = words.size() - n_cuts;
      words[n_rest - 1].first = 0;
      words.erase(words.begin(), words.begin() + static_cast<int64_t>(n_rest) - 1);
    } else {
      words.resize(n_cuts + 1);
      words.back().second = bytes.size();
    }
  }
  std::vector<Text> parts;
  for (const auto& [begin, end] : words) parts.push_back(text.Substring(begin, end));
  return parts;
}

// Replaces [begin, end) of `text` by `replacement` with the origin of the byte at `begin`.
void AppendMapped(const Text& text, size_t begin, absl::string_view replacement, Text* out) {
  out->Append(replacement, text.OriginAt(begin));
}

}  // namespace

Text Strip(const Text& text, Side side, const Text* characters) {
  std::vector<uint32_t> codes;
  if (characters != nullptr) {
    for (size_t i = 0; i < characters->size();) {
      const Character character = CharacterAt(characters->bytes(), i);
      codes.push_back(character.code);
      i += character.n_bytes;
    }
  }
  const std::vector<uint32_t>* stripped = characters == nullptr ? nullptr : &codes;
  size_t begin = 0, end = text.size();
  while (side != Side::kRight && begin < end) {
    const Character character = CharacterAt(text.bytes(), begin);
    if (!IsStripped(character.code, stripped)) break;
    begin += character.n_bytes;
  }
  while (side != Side::kLeft && begin < end) {
    const Character character = CharacterBefore(text.bytes(), end);
    if (!IsStripped(character.code, stripped)) break;
    end -= character.n_bytes;
  }
  return text.Substring(begin, end);
}

size_t FindText(absl::string_view text, absl::string_view needle, size_t from) {
  if (from > text.size()) return absl::string_view::npos;
  if (needle.empty()) return from;
  // memmem, unlike string_view::find, is linear in the worst case.
  const void* found = memmem(text.data() + from, text.size() - from, needle.data(), needle.size());
  if (found == nullptr) return absl::string_view::npos;
  return static_cast<size_t>(static_cast<const char*>(found) - text.data());
}

std::vector<Text> Split(const Text& text, const Text* separator, int64_t max_splits,
                        bool from_right) {
  if (separator == nullptr) return SplitAtSpace(text, max_splits, from_right);
  const size_t width = separator->size();
  std::vector<size_t> cuts;
  if (from_right) {
    size_t end = text.size();
    while (end >= width) {
      const size_t cut = text.bytes().substr(0, end).rfind(separator->bytes());
      if (cut == absl::string_view::npos) break;
      if (max_splits >= 0 && static_cast<int64_t>(cuts.size()) == max_splits) break;
      cuts.push_back(cut);
      end = cut;
    }
    std::reverse(cuts.begin(), cuts.end());
  } else {
    size_t cut = FindText(text.bytes(), separator->bytes(), 0);
    while (cut != absl::string_view::npos &&
           (max_splits < 0 || static_cast<int64_t>(cuts.size()) < max_splits)) {
      cuts.push_back(cut);
      cut = FindText(text.bytes(), separator->bytes(), cut + width);
    }
  }
  std::vector<Text> parts;
  size_t begin = 0;
  for (size_t cut : cuts) {
    parts.push_back(text.Substring(begin, cut));
    begin = cut + width;
  }
  parts.push_back(text.Substring(begin, text.size()));
  return parts;
}

std::vector<Text> SplitLines(const Text& text, bool keep_ends) {
  std::vector<Text> lines;
  size_t begin = 0;
  for (size_t i = 0; i < text.size();) {
    const Character character = CharacterAt(text.bytes(), i);
    const size_t line_end = i;
    i += character.n_bytes;
    if (!IsLineBreak(character.code)) continue;
    if (character.code == '\r' && i < text.size() && text.bytes()[i] == '\n') ++i;
    lines.push_back(text.Substring(begin, keep_ends ? i : line_end));
    begin = i;
  }
  if (begin < text.size()) lines.push_back(text.Substring(begin, text.size()));
  return lines;
}

absl::StatusOr<Text> Replace(const Text& text, const Text& from, const Text& to, int64_t max_count,
                             Work& work) {
  Text out;
  size_t begin = 0, at = 0;
  for (int64_t count = 0; max_count < 0 || count < max_count; ++count) {
    const size_t found = FindText(text.bytes(), from.bytes(), at);
    if (found == absl::string_view::npos) break;
    COTERIE_RETURN_IF_ERROR(work.ChargeBytes(to.cost_bytes()));
    out.AppendRange(text, begin, found);
    out.Append(to);
    begin = found + from.size();
    if (from.empty()) {
      // An empty needle stands before every character and at the end.
      if (begin >= text.size()) break;
      at = begin + CharacterAt(text.bytes(), begin).n_bytes;
    } else {
      at = begin;
    }
  }
  out.AppendRange(text, begin, text.size());
  return out;
}

absl::StatusOr<Text> Repeat(const Text& text, int64_t count, Work& work) {
  Text out;
  out.set_markup(text.markup());
  for (int64_t i = 0; i < count && !text.empty(); ++i) {
    COTERIE_RETURN_IF_ERROR(work.ChargeBytes(text.cost_bytes()));
    out.Append(text);
  }
  return out;
}

absl::StatusOr<Text> Join(const std::vector<Text>& parts, const Text& separator, Work& work) {
  Text out;
  for (size_t i = 0; i < parts.size(); ++i) {
    COTERIE_RETURN_IF_ERROR(work.ChargeBytes(parts[i].cost_bytes() + separator.cost_bytes()));
    if (i > 0) out.Append(separator);
    out.Append(parts[i]);
  }
  return out;
}

Text ChangeCase(const Text& text, LetterCase letter_case) {
  static constexpr absl::string_view kWordBreaks = "-({[<";
  Text out;
  bool at_start = true;
  for (size_t i = 0; i < text.size();) {
    const Character character = CharacterAt(text.bytes(), i);
    const absl::string_view bytes = text.bytes().substr(i, character.n_bytes);
    const bool upper =
        letter_case == LetterCase::kUpper || (letter_case != LetterCase::kLower && at_start);
    AppendMapped(text, i, upper ? ToUpper(bytes) : ToLower(bytes), &out);
    const bool breaks =
        IsSpace(character.code) ||
        (character.code < 0x80 &&
         kWordBreaks.find(static_cast<char>(character.code)) != absl::string_view::npos);
    at_start = letter_case == LetterCase::kTitle && breaks;
    i += character.n_bytes;
  }
  out.set_markup(text.markup());
  return out;
}

absl::StatusOr<Text> Indent(const Text& text, const Text& indentation, bool first, bool blank,
                            Work& work) {
  Text with_newline = text;
  with_newline.Append("\n", {});
  const std::vector<Text> lines = SplitLines(with_newline, /*keep_ends=*/false);
  Text out;
  if (first) out.Append(indentation);
  for (size_t i = 0; i < lines.size(); ++i) {
    COTERIE_RETURN_IF_ERROR(work.ChargeBytes(indentation.cost_bytes() + lines[i].cost_bytes()));
    if (i > 0) {
      out.Append("\n", text.empty() ? Origin{} : text.OriginAt(0));
      if (blank || !lines[i].empty()) out.Append(indentation);
    }
    out.Append(lines[i]);
  }
  out.set_markup(text.markup());
  return out;
}

absl::StatusOr<Text> EscapeHtml(const Text& text, Work& work) {
  COTERIE_RETURN_IF_ERROR(work.ChargeBytes(text.cost_bytes() * 6));
  if (text.markup()) return text;
  Text out;
  for (size_t i = 0; i < text.size(); ++i) {
    switch (text.bytes()[i]) {
      case '&':
        AppendMapped(text, i, "&amp;", &out);
        break;
      case '<':
        AppendMapped(text, i, "&lt;", &out);
        break;
      case '>':
        AppendMapped(text, i, "&gt;", &out);
        break;
      case '"':
        AppendMapped(text, i, "&#34;", &out);
        break;
      case '\'':
        AppendMapped(text, i, "&#39;", &out);
        break;
      default:
        out.AppendRange(text, i, i + 1);
    }
  }
  out.set_markup(true);
  return out;
}

absl::StatusOr<Text> Add(const Text& a, const Text& b, Work& work) {
  COTERIE_RETURN_IF_ERROR(work.ChargeBytes(a.cost_bytes() + b.cost_bytes()));
  Text sum = a;
  Text tail = b;
  if (a.markup() || b.markup()) {
    COTERIE_ASSIGN_OR_RETURN(sum, EscapeHtml(a, work));
    COTERIE_ASSIGN_OR_RETURN(tail, EscapeHtml(b, work));
  }
  sum.Append(tail);
  return sum;
}

std::vector<int64_t> SlicePositions(int64_t n, const int64_t* start, const int64_t* stop,
                                    int64_t step) {
  const int64_t low = step > 0 ? 0 : -1;
  const int64_t high = step > 0 ? n : n - 1;
  const auto place = [&](int64_t index) {
    if (index < 0) index = index < -n ? low : index + n;
    return std::clamp(index, low, std::max(low, high));
  };
  const int64_t begin = start != nullptr ? place(*start) : step > 0 ? 0 : n - 1;
  const int64_t end = stop != nullptr ? place(*stop) : step > 0 ? n : -1;
  std::vector<int64_t> positions;
  if (step > 0) {
    for (int64_t i = begin; i<end; i = step> end - i ? end : i + step) positions.push_back(i);
  } else {
    for (int64_t i = begin; i > end; i = step < end - i ? end : i + step) positions.push_back(i);
  }
  return positions;
}

Text SliceText(const Text& text, const int64_t* start, const int64_t* stop, int64_t step) {
  const std::vector<size_t> offsets = CharacterOffsets(text.bytes());
  const int64_t n = static_cast<int64_t>(offsets.size()) - 1;
  const std::vector<int64_t> positions = SlicePositions(n, start, stop, step);
  if (positions.empty()) return text.Substring(0, 0);
  if (step == 1) return text.Substring(offsets[positions.front()], offsets[positions.back() + 1]);
  Text out;
  for (int64_t i : positions) out.AppendRange(text, offsets[i], offsets[i + 1]);
  out.set_markup(text.markup());
  return out;
}

}  // namespace coterie::jinja
