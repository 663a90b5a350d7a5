#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "core/formats/tokenizer.h"
#include "lora/dropout.h"

namespace coterie {

// The sequences of one pass, one after another; the rows whose next token is in the loss; and what
// of the adapter's inputs is dropped.
struct TrainingRows {
  struct Sequence {
    int64_t first = 0;
    int64_t n_tokens = 0;
  };
  std::vector<TokenId> tokens;
  std::vector<Sequence> sequences;
  std::vector<int64_t> loss_rows;    // Rising.
  std::vector<TokenId> loss_labels;  // [loss_rows.size()]
  Dropout dropout;                   // On for passes that learn alone.

  int64_t n_rows() const { return static_cast<int64_t>(tokens.size()); }
  int64_t n_loss_rows() const { return static_cast<int64_t>(loss_rows.size()); }
};

// Tokens as the key of what is kept for them.
inline std::string TokenBytes(const TokenId* tokens, size_t n) {
  return std::string(reinterpret_cast<const char*>(tokens), n * sizeof(TokenId));
}

}  // namespace coterie
