#include "core/formats/special_tokens.h"

#include <algorithm>

#include "core/formats/unicode.h"
#include "core/formats/utf8.h"

namespace coterie {
namespace {

bool IsTakenAt(absl::string_view text, size_t i, bool spares_spaces, size_t* n_bytes) {
  const Utf8Char c = DecodeUtf8(text.data() + i);
  *n_bytes = c.n_bytes;
  if (spares_spaces && c.code_point == ' ') return false;
  return (UnicodeClass(c.code_point) & kUnicodeSpace) != 0;
}

size_t LastCharBegin(absl::string_view text, size_t end) {
  size_t i = end - 1;
  while (i > 0 && (static_cast<unsigned char>(text[i]) & 0xC0) == 0x80) --i;
  return i;
}

// Where the white space ends that begins at `i`.
size_t SkipSpaces(absl::string_view text, size_t i, bool spares_spaces) {
  size_t n_bytes;
  while (i < text.size() && IsTakenAt(text, i, spares_spaces, &n_bytes)) i += n_bytes;
  return i;
}

// Where the white space begins that ends at `end`, not before `from`.
size_t SkipSpacesBack(absl::string_view text, size_t from, size_t end, bool spares_spaces) {
  size_t n_bytes;
  while (end > from) {
    const size_t i = LastCharBegin(text, end);
    if (!IsTakenAt(text, i, spares_spaces, &n_bytes)) break;
    end = i;
  }
  return end;
}

// Whether the character before `end` belongs to a word.
bool IsWordBefore(absl::string_view text, size_t end) {
  if (end == 0) return false;
  return IsWordCharacter(DecodeUtf8(text.data() + LastCharBegin(text, end)).code_point);
}

bool IsWordAt(absl::string_view text, size_t i) {
  return i < text.size() && IsWordCharacter(DecodeUtf8(text.data() + i).code_point);
}

}  // namespace

int32_t SpecialTokens::Child(int32_t node, uint8_t byte) const {
  int32_t child = nodes_[node].first_child;
  while (child >= 0 && nodes_[child].byte != byte) child = nodes_[child].next_sibling;
  return child;
}

bool SpecialTokens::Add(absl::string_view text, const Token& token) {
  const auto append = [this](char c) {
    nodes_.push_back({-1, -1, -1, static_cast<uint8_t>(c)});
    return static_cast<int32_t>(nodes_.size()) - 1;
  };
  int32_t& root = roots_[static_cast<uint8_t>(text[0])];
  if (root < 0) root = append(text[0]);
  int32_t node = root;
  for (const char c : text.substr(1)) {
    int32_t child = Child(node, static_cast<uint8_t>(c));
    if (child < 0) {
      child = append(c);
      nodes_[child].next_sibling = nodes_[node].first_child;
      nodes_[node].first_child = child;
    }
    node = child;
  }
  if (nodes_[node].token >= 0) return false;
  nodes_[node].token = static_cast<int32_t>(tokens_.size());
  tokens_.push_back(token);
  has_blanks_ |= token.is_blank;
  return true;
}

size_t SpecialTokens::LongestAt(absl::string_view text, size_t begin, size_t trusted_end,
                                const Token** token) const {
  size_t longest = begin;
  int32_t node = roots_[static_cast<uint8_t>(text[begin])];
  for (size_t end = begin + 1; node >= 0; ++end) {
    if (nodes_[node].token >= 0) {
      const Token& found = tokens_[nodes_[node].token];
      if (end <= trusted_end || found.is_blank) {
        longest = end;
        *token = &found;
      }
    }
    if (end == text.size()) break;
    node = Child(node, static_cast<uint8_t>(text[end]));
  }
  return longest;
}

std::optional<SpecialTokens::Match> SpecialTokens::FindNext(absl::string_view text,
                                                            absl::Span<const TrustRun> runs,
                                                            Cursor* cursor) const {
  if (empty()) return std::nullopt;
  const auto is_before = [](size_t at, const TrustRun& run) { return at < run.end; };
  auto run = std::upper_bound(runs.begin(), runs.end(), cursor->search, is_before);
  for (size_t begin = cursor->search; begin < text.size(); ++begin) {
    while (run->end <= begin) ++run;
    if (!run->trusted && !has_blanks_) {
      begin = run->end - 1;
      continue;
    }
    if (roots_[static_cast<uint8_t>(text[begin])] < 0) continue;
    const Token* token = nullptr;
    const size_t end = LongestAt(text, begin, run->trusted ? run->end : begin, &token);
    if (token == nullptr) continue;
    if (token->is_word && (IsWordBefore(text, begin) || IsWordAt(text, end))) {
      begin = end - 1;
      continue;
    }
    Match match = {begin, end, begin, token->id};
    const bool spares_spaces = token->spares_spaces;
    if (token->strips_left) {
      match.begin = SkipSpacesBack(text, std::min(cursor->settled, begin), begin, spares_spaces);
    }
    if (token->strips_right) match.end = SkipSpaces(text, end, spares_spaces);
    *cursor = {end, match.end};
    return match;
  }
  return std::nullopt;
}

TokenId SpecialTokens::Lookup(absl::string_view text) const {
  if (text.empty()) return -1;
  int32_t node = roots_[static_cast<uint8_t>(text[0])];
  for (size_t i = 1; i < text.size() && node >= 0; ++i) {
    node = Child(node, static_cast<uint8_t>(text[i]));
  }
  return node < 0 || nodes_[node].token < 0 ? -1 : tokens_[nodes_[node].token].id;
}

}  // namespace coterie
