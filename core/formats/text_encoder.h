#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/strings/string_view.h"

#include "core/formats/token_table.h"
#include "core/formats/unicode.h"

namespace coterie {

// Where an encoder writes tokens. For each token that is appended to *ids, *starts (unless null)
// gets the byte offset in the stretch at which the token's text begins. *ids may begin with others.
struct TokenSink {
  std::vector<TokenId>* ids;
  std::vector<uint32_t>* starts;

  void Append(TokenId id, uint32_t start) const {
    ids->push_back(id);
    if (starts != nullptr) starts->push_back(start);
  }
  void Erase(size_t i) const {
    if (starts != nullptr) starts->erase(starts->end() - static_cast<int64_t>(ids->size() - i));
    ids->erase(ids->begin() + static_cast<int64_t>(i));
  }
};

// Turns a stretch of text without special tokens into tokens: what differs between the families of
// tokenizers. Const and thread-safe. All text is well-formed UTF-8 of less than 2^31 bytes. No
// control token is ever appended, whatever the text, but for the one that a family uses for words
// it does not know.
class TextEncoder {
 public:
  virtual ~TextEncoder() = default;

  void Encode(absl::string_view text, const TokenSink& sink) const;

  // What the text becomes before anything is looked for in it; nullopt: it stays as it is.
  virtual std::optional<Normalized> Normalize(absl::string_view) const { return std::nullopt; }
  // Encodes text that Normalize gave back, or a part of it.
  virtual void EncodeNormalized(absl::string_view text, const TokenSink& sink) const = 0;

  virtual int64_t memory_bytes() const = 0;
};

}  // namespace coterie
