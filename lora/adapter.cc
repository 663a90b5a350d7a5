#include "lora/adapter.h"

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

#include "core/base/quote.h"
#include "core/base/status_macros.h"
#include "lora/sha256.h"

namespace coterie {
namespace {

constexpr size_t kMaxNameBytes = 64;
constexpr absl::string_view kContentHash = "sha256:";

std::string TokenizerHash(const Tokenizer& tokenizer) {
  std::string all, bytes;
  for (TokenId id = 0; id < tokenizer.n_vocab(); ++id) {
    bytes.clear();
    tokenizer.AppendBytes(id, /*is_first=*/false, &bytes);
    absl::StrAppend(&all, bytes.size(), ":", bytes);
  }
  return Sha256Of(all);
}

std::string TemplateHash(const ModelFiles& files) {
  const absl::StatusOr<std::string> source = files.ReadChatTemplate();
  return source.ok() && !source->empty() ? Sha256Of(*source) : "";
}

bool Differ(absl::string_view a, absl::string_view b) { return !a.empty() && !b.empty() && a != b; }

absl::Status CheckSame(const Adapter& adapter, absl::string_view what, absl::string_view theirs,
                       absl::string_view ours, const BaseIdentity& base) {
  if (!Differ(theirs, ours)) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("the adapter was made for another ", what, ": adapter=", adapter.name,
                   ", wants=", Quote(theirs), ", base=", base.name, ", has=", Quote(ours)));
}

// The last part of "HuggingFaceTB/SmolLM2-135M-Instruct" in lower case without punctuation.
std::string PlainName(absl::string_view name) {
  std::string plain;
  for (const char c : name.substr(name.rfind('/') + 1)) {
    if (absl::ascii_isalnum(static_cast<unsigned char>(c))) {
      plain += absl::ascii_tolower(static_cast<unsigned char>(c));
    }
  }
  return plain;
}

bool LookAlike(absl::string_view a, absl::string_view b) {
  const std::string x = PlainName(a), y = PlainName(b);
  return absl::StartsWith(x, y) || absl::StartsWith(y, x);
}

}  // namespace

BaseIdentity IdentityOf(const Expert& expert, absl::string_view id, absl::string_view name) {
  BaseIdentity base;
  if (absl::StartsWith(id, kContentHash)) base.id = std::string(id);
  base.name = std::string(name);
  base.architecture = expert.spec().architecture;
  base.tokenizer = TokenizerHash(expert.tokenizer());
  base.chat_template = TemplateHash(expert.files());
  return base;
}

absl::Status CheckAdapterName(absl::string_view name) {
  const bool ok = !name.empty() && name.size() <= kMaxNameBytes && name.front() != '.' &&
                  std::all_of(name.begin(), name.end(), [](char c) {
                    return absl::ascii_isalnum(static_cast<unsigned char>(c)) ||
                           absl::string_view("._-").find(c) != absl::string_view::npos;
                  });
  if (ok) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("an adapter's name has 1 to 64 letters, digits, or . _ - and no dot in front: "
                   "name=",
                   Quote(name)));
}

absl::Status CheckFits(const Adapter& adapter, const ArchSpec& spec, const BaseIdentity& base) {
  COTERIE_RETURN_IF_ERROR(CheckSame(adapter, "base", adapter.base.id, base.id, base));
  COTERIE_RETURN_IF_ERROR(
      CheckSame(adapter, "architecture", adapter.base.architecture, spec.architecture, base));
  COTERIE_RETURN_IF_ERROR(
      CheckSame(adapter, "tokenizer", adapter.base.tokenizer, base.tokenizer, base));
  COTERIE_RETURN_IF_ERROR(
      CheckSame(adapter, "chat template", adapter.base.chat_template, base.chat_template, base));
  for (const LinearDelta& delta : adapter.deltas) {
    COTERIE_RETURN_IF_ERROR(LinearDeltaSet::Check(spec, delta));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> Bind(Adapter& adapter, const ArchSpec& spec, const BaseIdentity& base) {
  COTERIE_RETURN_IF_ERROR(CheckFits(adapter, spec, base));
  const BaseIdentity stated = std::exchange(adapter.base, base);
  // What only the file knows stays.
  if (!stated.name.empty()) adapter.base.name = stated.name;
  if (!stated.id.empty()) {
    adapter.base.id = stated.id;
    return std::string();
  }
  std::string warning =
      "the adapter names no base by hash; it was checked by architecture and shapes only";
  if (!base.id.empty())
    absl::StrAppend(&warning, ", and is now bound to ", base.name, " (", base.id, ")");
  if (stated.name.empty()) return warning;
  absl::StrAppend(&warning, "; it says that it was trained on ", Quote(stated.name));
  if (!base.name.empty() && !LookAlike(stated.name, base.name)) {
    absl::StrAppend(&warning, ", which looks like another model");
  }
  return warning;
}

void PermuteRows(const ArchSpec& spec, RowOrder to, LinearDelta& delta) {
  if (delta.linear != LayerLinear::kQ && delta.linear != LayerLinear::kK) return;
  const size_t dim = static_cast<size_t>(spec.head_dim), half = dim / 2;
  const size_t rank = static_cast<size_t>(delta.rank);
  const std::vector<float> before = delta.b;
  for (size_t row = 0; row * rank < before.size(); ++row) {
    // Row i of half h of a head stands at h * dim / 2 + i in one order, at 2 i + h in the other.
    const size_t head = row / dim, within = row % dim;
    const size_t adjacent = head * dim + 2 * (within % half) + within / half;
    const size_t from = to == RowOrder::kAdjacent ? row : adjacent;
    const size_t at = to == RowOrder::kAdjacent ? adjacent : row;
    std::copy_n(before.begin() + static_cast<ptrdiff_t>(from * rank), rank,
                delta.b.begin() + static_cast<ptrdiff_t>(at * rank));
  }
}

std::vector<LinearDelta> ServedDeltas(const Adapter& adapter, const ArchSpec& spec) {
  std::vector<LinearDelta> served = adapter.deltas;
  if (spec.rope != RopeKind::kAdjacent) return served;
  for (LinearDelta& delta : served) PermuteRows(spec, RowOrder::kAdjacent, delta);
  return served;
}

std::vector<LinearDelta> DeltasFromServed(std::vector<LinearDelta> served, const ArchSpec& spec) {
  if (spec.rope != RopeKind::kAdjacent) return served;
  for (LinearDelta& delta : served) PermuteRows(spec, RowOrder::kHuggingFace, delta);
  return served;
}

absl::StatusOr<DeltaSnapshot> Serve(const Adapter& adapter, const ArchSpec& spec,
                                    std::string version) {
  // Before any row is moved by the base's extents.
  for (const LinearDelta& delta : adapter.deltas) {
    COTERIE_RETURN_IF_ERROR(LinearDeltaSet::Check(spec, delta));
  }
  return LinearDeltaSet::Create(spec, std::move(version), ServedDeltas(adapter, spec));
}

}  // namespace coterie
