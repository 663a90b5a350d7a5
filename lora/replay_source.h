#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

#include "core/formats/tokenizer.h"
#include "lora/trainer.h"

namespace coterie {

// General text, mixed into training so that what an expert could do before is not forgotten. Const
// after construction, thread-safe.
class ReplaySource {
 public:
  // Reads a UTF-8 text file of at most 64 MB. Errors of ReadSmallFile; kDataLoss for bytes that are
  // not UTF-8, with the place; kInvalidArgument if there is not one passage in it.
  static absl::StatusOr<ReplaySource> Open(absl::string_view path);
  static absl::StatusOr<ReplaySource> FromText(std::string text, absl::string_view name);

  // At most n passages, different ones, chosen by the seed, each of whole lines and at most
  // max_tokens tokens; kImitate with all tokens as targets. Fewer if the text has fewer.
  absl::StatusOr<std::vector<TrainingExample>> Examples(const Tokenizer& tokenizer, int64_t n,
                                                        int64_t max_tokens, uint64_t seed,
                                                        float weight = 1) const;

 private:
  explicit ReplaySource(std::string text) : text_(std::move(text)) {}

  // Beginnings and lengths of passages of about so many bytes.
  std::vector<absl::string_view> Passages(size_t n_bytes) const;

  std::string text_;
};

}  // namespace coterie
