#pragma once

// A LoRA adapter as a value, whatever kind of file it came from or goes to.

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

#include "experts/expert.h"
#include "experts/linear_delta.h"

namespace coterie {

// The largest rank read from files.
inline constexpr int64_t kMaxAdapterRank = 4096;

// What an adapter was trained on, or what a loaded base is. Empty fields are unknown.
struct BaseIdentity {
  std::string id;             // "sha256:<hex>" of the base's file.
  std::string name;           // PEFT's base_model_name_or_path, or the name in the store.
  std::string architecture;   // "llama"
  std::string tokenizer;      // "sha256:<hex>" of the vocabulary, see IdentityOf.
  std::string chat_template;  // "sha256:<hex>" of the base's own template.
};

// Identifies a loaded base. `id` is its ExpertSpec::base_id, of which only "sha256:..." says what
// is in the file; any other becomes unknown. The tokenizer's hash is over the bytes of all tokens
// in the order of their ids, so that it is the same for every format of the model.
BaseIdentity IdentityOf(const Expert& expert, absl::string_view id, absl::string_view name);

struct Adapter {
  std::string name;
  BaseIdentity base;
  // Whether its files say alpha / sqrt(rank); the deltas' scales are final either way.
  bool rslora = false;
  // By layer and linear layer, each at most once. The rows of b are in Hugging Face's order.
  std::vector<LinearDelta> deltas;
};

// 1 to 64 letters, digits or . _ - that do not begin with a dot: a folder's name everywhere.
absl::Status CheckAdapterName(absl::string_view name);

// Whether the adapter can be served on a base. kFailedPrecondition, with both ids, for one that was
// made for another base, tokenizer or template; kInvalidArgument for deltas that the base has no
// place for. Unknown fields of either side are not compared.
absl::Status CheckFits(const Adapter& adapter, const ArchSpec& spec, const BaseIdentity& base);

// Binds an adapter to the base that the user named, after CheckFits. Returns a warning, one
// sentence, if its file named no base by hash; else nothing.
absl::StatusOr<std::string> Bind(Adapter& adapter, const ArchSpec& spec, const BaseIdentity& base);

// The deltas with the rows of b as `spec` serves them: those of q and k of llama's GGUF files are
// permuted (RopeKind::kAdjacent). And back.
std::vector<LinearDelta> ServedDeltas(const Adapter& adapter, const ArchSpec& spec);
std::vector<LinearDelta> DeltasFromServed(std::vector<LinearDelta> served, const ArchSpec& spec);

// For files in llama.cpp's order, whatever the order of the base as it is served.
enum class RowOrder : uint8_t { kHuggingFace, kAdjacent };
// Moves rows of b of q and k from one order to the other; other linear layers have but one.
void PermuteRows(const ArchSpec& spec, RowOrder to, LinearDelta& delta);

// What passes apply. Errors of LinearDeltaSet::Create; `version` is "NAME@N".
absl::StatusOr<DeltaSnapshot> Serve(const Adapter& adapter, const ArchSpec& spec,
                                    std::string version);

}  // namespace coterie
