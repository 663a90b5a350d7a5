#pragma once

// Finds tokens that are written literally, such as <|im_start|>, in text.

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "absl/strings/string_view.h"

#include "core/formats/token_table.h"

namespace coterie {

// A trie over literal tokens. Filled once, then const and thread-safe.
class SpecialTokens {
 public:
  SpecialTokens() { roots_.fill(-1); }

  // False if the text is there already. Requires a text that is not empty.
  bool Add(absl::string_view text, TokenId id);

  struct Match {
    size_t begin;
    size_t end;
    TokenId id;
  };
  // The first match in text[from, size), and the longest of those that begin there.
  std::optional<Match> FindNext(absl::string_view text, size_t from) const;

  // The token whose text this is, or -1.
  TokenId Lookup(absl::string_view text) const;

  int64_t memory_bytes() const { return static_cast<int64_t>(nodes_.capacity() * sizeof(Node)); }

 private:
  struct Node {
    int32_t first_child = -1;
    int32_t next_sibling = -1;
    TokenId id = -1;
    uint8_t byte = 0;
  };
  int32_t Child(int32_t node, uint8_t byte) const;

  std::array<int32_t, 256> roots_;  // By first byte.
  std::vector<Node> nodes_;
};

}  // namespace coterie
