#pragma once

// Cuts text into the pieces inside which a byte-level BPE tokenizer merges.

#include <cstddef>
#include <cstdint>
#include <optional>

#include "absl/strings/string_view.h"

namespace coterie {

// The families of cutting rules. Each is a regular expression that models were trained with; the
// scanner behind it gives the same pieces without a regex engine, in linear time.
//   kGpt2    's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
//   kSmollm  every digit on its own first, then kGpt2 inside each part
//   kLlama3  (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|
//            ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
//   kQwen2   kLlama3 with \p{N} in place of \p{N}{1,3}
// (?i:'s) also matches an apostrophe and U+017F, the long s, whose case folding is s.
enum class PretokenizerKind : uint8_t { kGpt2, kSmollm, kLlama3, kQwen2 };

// The family that a value of `tokenizer.ggml.pre` names; nullopt for a name that is not known.
std::optional<PretokenizerKind> PretokenizerNamed(absl::string_view pre);

// Walks over the pieces of one text, which is well-formed UTF-8 and outlives the walk. The pieces,
// joined, are the text. Thread-compatible.
class Pretokenizer {
 public:
  Pretokenizer(PretokenizerKind kind, absl::string_view text) : kind_(kind), text_(text) {}

  // The next piece, never empty; an empty view at the end.
  absl::string_view Next();

 private:
  size_t PieceEnd();

  PretokenizerKind kind_;
  absl::string_view text_;
  size_t position_ = 0;
  size_t part_end_ = 0;  // kSmollm: end of the part between two digits.
};

}  // namespace coterie
