#pragma once

// Finds tokens that are written literally, such as <|im_start|>, in text.

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"

#include "core/formats/token_table.h"

namespace coterie {

// Where a run of text ends that is trusted, or that is not. Only trusted text becomes special
// tokens.
struct TrustRun {
  size_t end;
  bool trusted;
};

// A trie over literal tokens. Filled once, then const and thread-safe.
class SpecialTokens {
 public:
  SpecialTokens() { roots_.fill(-1); }

  struct Token {
    TokenId id;
    bool is_blank = false;  // White space, which untrusted text may become too.
    bool is_word = false;   // Not where it is part of a word.
    bool strips_left = false, strips_right = false;  // Takes white space beside it with it,
    bool spares_spaces = false;                      // but no U+0020, which here stands for a mark.
  };
  // False if the text is there already. Requires a text that is not empty.
  bool Add(absl::string_view text, const Token& token);

  bool empty() const { return tokens_.empty(); }

  struct Match {
    size_t begin, end;  // With the white space that it takes.
    size_t text_begin;
    TokenId id;
  };
  // How far a text has been searched.
  struct Cursor {
    size_t search = 0;   // End of the last match's own text.
    size_t settled = 0;  // End of the last match.
  };
  // The next match and the longest of those that begin there, as Hugging Face finds them. `runs`
  // are sorted and end with the text.
  std::optional<Match> FindNext(absl::string_view text, absl::Span<const TrustRun> runs,
                                Cursor* cursor) const;

  // The token whose text this is, or -1.
  TokenId Lookup(absl::string_view text) const;

  int64_t memory_bytes() const {
    return static_cast<int64_t>(nodes_.capacity() * sizeof(Node) +
                                tokens_.capacity() * sizeof(Token));
  }

 private:
  struct Node {
    int32_t first_child = -1;
    int32_t next_sibling = -1;
    int32_t token = -1;  // Into tokens_.
    uint8_t byte = 0;
  };
  int32_t Child(int32_t node, uint8_t byte) const;
  // The longest token at `begin`, of which all must be before `trusted_end` unless it is blank;
  // its end, or `begin` for none.
  size_t LongestAt(absl::string_view text, size_t begin, size_t trusted_end,
                   const Token** token) const;

  std::array<int32_t, 256> roots_;  // By first byte.
  std::vector<Node> nodes_;
  std::vector<Token> tokens_;
  bool has_blanks_ = false;
};

}  // namespace coterie
