#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/span.h"

#include "experts/expert_quality.h"
#include "experts/sampler.h"

namespace coterie {

// One expert: which weights, what it is good at and how it speaks.
struct ExpertSpec {
  std::string name;       // Letters, digits and . _ : - ; at most 64.
  std::string base_path;  // Absolute path of a GGUF file, its first part, or a folder.
  // Names the content: "sha256:<hex>" where the store knows it, else "file:" with the resolved
  // path, size and time of the last change. Experts with one base_id share their loaded weights.
  std::string base_id;
  std::string adapter;                      // Empty: none.
  ExpertQuality worth;                      // By domain: how good, how quick.
  std::string system_prompt;                // Empty: the template's own.
  std::optional<SamplingOptions> sampling;  // Defaults for requests that say nothing.
  std::string chat_template;                // Replaces the file's own if not empty.
  int64_t bytes = 0;                        // Of all weight files.
  int context_tokens = 0;                   // Longest conversation; 0: as long as the model allows.
  bool pinned = false;                      // Never evicted once loaded.
  std::optional<absl::Duration> keep_alive = {};  // None: the cache's default.
};

// Describes the model at `path` (a GGUF file, the first part of a split one, or a Hugging Face
// folder) as an expert, with default quality. Looks at sizes, times and first bytes only. `sha256`
// may be empty. kNotFound (a part or shard that is missing, too), kInvalidArgument (neither a file
// nor a folder with config.json, or a bad name) or kDataLoss (not GGUF), naming expert and path.
absl::StatusOr<ExpertSpec> DescribeModelFile(absl::string_view name, absl::string_view path,
                                             absl::string_view sha256);

// The experts there are, by name. Loads no model. Const after construction; copyable.
class ExpertCatalog {
 public:
  ExpertCatalog() = default;

  // Every model that a manifest home/models/*.json describes: a JSON object with "name",
  // "path" (absolute or relative to home), "sha256" and "bytes" (both optional, checked against the
  // size of the weight files); other keys are ignored. Models of another format are left out
  // silently; a manifest that is wrong is left out with a line in problems(). A store that does not
  // exist has no experts. kInvalidArgument if home/models cannot be read.
  static absl::StatusOr<ExpertCatalog> FromStore(absl::string_view home);

  // kInvalidArgument for two experts of one name, a bad name, a path that is not absolute or a
  // quality outside [0, 1]. `problems` are kept.
  static absl::StatusOr<ExpertCatalog> FromSpecs(std::vector<ExpertSpec> specs,
                                                 std::vector<std::string> problems = {});

  absl::Span<const ExpertSpec> experts() const { return specs_; }  // Sorted by name.
  // kNotFound with the names there are.
  absl::StatusOr<const ExpertSpec*> Find(absl::string_view name) const;
  // What was left out and why, one line each.
  const std::vector<std::string>& problems() const { return problems_; }

 private:
  std::vector<ExpertSpec> specs_;
  std::vector<std::string> problems_;
};

}  // namespace coterie
