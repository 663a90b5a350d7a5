#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "nlohmann/json.hpp"

namespace coterie {

// A tokenizer.json taken apart: the two long lists apart from the rest.
struct TokenizerJsonParts {
  // A part of `texts`.
  struct Text {
    uint32_t begin;
    uint32_t end;
  };
  struct Token {
    Text text;
    uint32_t id;
  };

  absl::string_view At(Text text) const {
    return absl::string_view(texts).substr(text.begin, text.end - text.begin);
  }

  std::string texts;
  std::vector<Token> vocabulary;  // model.vocab, in the order of the file.
  std::vector<Text> merges;       // model.merges, each as "left right".
  nlohmann::json rest;            // All else; those two are null in it.
};

// Parses the JSON of a tokenizer.json, or of another file about a tokenizer, which lacks the lists.
// `name` stands in messages. kDataLoss for text that is not a JSON object, that holds a name twice
// in one object, or is nested deeper than 16 levels; for more than 2^20 tokens, 2^21 merges or 2^18
// other values; for tokens whose id is no number below 2^24; and for merges that are neither text
// nor two texts without spaces. Memory is within a few times the text.
absl::StatusOr<TokenizerJsonParts> ReadTokenizerJson(absl::string_view text,
                                                     absl::string_view name);

}  // namespace coterie
