#pragma once

// Tokenizers in Hugging Face's own form: a folder with tokenizer.json.

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

#include "core/formats/tokenizer.h"

namespace coterie {

// Files of one folder, as text; all but the first may be empty.
struct HuggingFaceTokenizerFiles {
  absl::string_view name = "";       // The folder, for error messages.
  absl::string_view tokenizer = "";  // tokenizer.json
  absl::string_view tokenizer_config =
      "";  // tokenizer_config.json: which tokens begin and end a text
  absl::string_view generation_config = "";  // generation_config.json: what else ends an answer
  absl::string_view config = "";             // config.json: likewise
};

// Reads the tokenizer of a folder: byte-level BPE that cuts text as GPT-2, SmolLM, Llama 3 or
// Qwen 2 do, SentencePiece-style BPE with byte fallback (Gemma, Llama 2), uncased BERT. Ids are
// those of Hugging Face tokenizers. kUnimplemented for a step that is not known, by its name;
// kDataLoss for files that contradict themselves (see also ReadTokenizerJson); kNotFound without a
// tokenizer.json.
absl::StatusOr<std::unique_ptr<const Tokenizer>> TokenizerFromHuggingFace(absl::string_view folder);
absl::StatusOr<std::unique_ptr<const Tokenizer>> TokenizerFromHuggingFace(
    const HuggingFaceTokenizerFiles& files);

// At least what memory_bytes() of the folder's tokenizer will be.
absl::StatusOr<int64_t> EstimateHuggingFaceTokenizerBytes(absl::string_view folder);

}  // namespace coterie
