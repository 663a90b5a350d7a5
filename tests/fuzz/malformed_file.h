#pragma once

// Files that lie, each a valid one with one thing wrong: what the tests expect to be refused, and
// the seeds of the fuzzers.

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace coterie::testing {

struct MalformedFile {
  std::string name;  // Letters and digits: what is wrong.
  std::string bytes;
  absl::StatusCode code = absl::StatusCode::kDataLoss;
  std::string field;  // What the message must name beside the file.
};

// The text n times, one after another.
inline std::string Repeat(absl::string_view text, int n) {
  std::string repeated;
  for (int i = 0; i < n; ++i) absl::StrAppend(&repeated, text);
  return repeated;
}

// Containers: what GgufFile and SafetensorsFile refuse.
std::vector<MalformedFile> MalformedGguf();
std::vector<MalformedFile> MalformedSafetensors();
// Sound GGUF files with wrong contents: what Expert::Open and Router::Load refuse.
std::vector<MalformedFile> MalformedModels();
std::vector<MalformedFile> MalformedRouters();
// Text files: chat templates, coterie.toml, and records of the model store.
std::vector<MalformedFile> MalformedTemplates();
std::vector<MalformedFile> MalformedConfigurations();
std::vector<MalformedFile> MalformedRecords();

// Parts of a Hugging Face folder: tokenizer.json, and model.safetensors.index.json of one shard,
// "a.safetensors", that is ValidSafetensors().
std::vector<MalformedFile> MalformedTokenizerJson();
std::vector<MalformedFile> MalformedShardIndexes();

// Of the folder of tests/fuzz/hugging_face_draft.h, one file.
std::vector<MalformedFile> MalformedModelConfigs();
std::vector<MalformedFile> MalformedTokenizerConfigs();
std::vector<MalformedFile> MalformedGenerationConfigs();
std::vector<MalformedFile> MalformedModelWeights();

// TinyModel in two parts, the other of which is valid.
std::vector<MalformedFile> MalformedFirstParts();
std::vector<MalformedFile> MalformedSecondParts();

// adapter_config.json beside the matrices of rank 2 of up_proj of one layer.
std::vector<MalformedFile> MalformedAdapterConfigs();
// adapter_model.safetensors beside ValidAdapterConfig(), and GGUF adapters of TinyModel.
std::vector<MalformedFile> MalformedAdapterTensors();
std::vector<MalformedFile> MalformedGgufAdapters();
// What the store of adapters keeps of a version, and which version it names as current.
std::vector<MalformedFile> MalformedLedgers();
std::vector<MalformedFile> MalformedCurrentVersions();

// measurements.json of `coterie bench value --write`.
std::vector<MalformedFile> MalformedMeasurements();

// What no file of one JSON object may be, if at most max_bytes are read of it.
std::vector<MalformedFile> MalformedJson(int64_t max_bytes);

// One valid file of each kind.
std::string ValidGguf();
std::string ValidSafetensors();
std::string ValidTemplate();
std::string ValidConfiguration();
// A record named "tiny" of a model "model.gguf" that lies in the store's home.
std::string ValidRecord();
std::string ValidTokenizerJson();
std::string ValidShardIndex();
std::string ValidAdapterConfig();
std::string ValidAdapterTensors();
std::string ValidGgufAdapter();
std::string ValidLedger();
std::string ValidMeasurements();
std::string ValidFirstPart();
std::string ValidSecondPart();

}  // namespace coterie::testing
