#pragma once

#include <string>
#include <vector>

#include "tests/fuzz/safetensors_draft.h"

namespace coterie::testing {

// The parts of a valid Hugging Face folder beside its tokenizer.json (ValidTokenizerJson): a llama
// of one layer, width 32 and four tokens.
std::string TinyModelConfig();      // config.json
std::string TinyTokenizerConfig();  // tokenizer_config.json
std::string TinyModelWeights();     // model.safetensors
std::vector<DraftTensor> TinyModelTensors();

// Writes into a folder what it lacks of them.
void CompleteHuggingFaceFolder(const std::string& folder);

}  // namespace coterie::testing
