// Routers as files, and routers fitted on this machine.

#include <algorithm>
#include <map>
#include <set>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"

#include "core/base/quote.h"
#include "core/base/status_macros.h"
#include "core/formats/gguf_file.h"
#include "core/formats/gguf_writer.h"
#include "router/calibration.h"
#include "router/encoder.h"
#include "router/lexical_fit.h"
#include "router/lexical_model.h"
#include "router/prompt_text.h"
#include "router/router.h"

namespace coterie {
namespace {

constexpr absl::string_view kArchitecture = "coterie-router";
constexpr absl::string_view kAddedKey = "router.added_domains";
constexpr absl::string_view kCorrections = "corrections";
constexpr int64_t kFormat = 1;
constexpr size_t kMaxDomains = Router::kMaxDomains;

absl::Status Damaged(const GgufFile& file, absl::string_view what) {
  return absl::DataLossError(absl::StrCat("damaged router file: ", what, ": file=", file.path()));
}

absl::Status CheckFormat(const GgufFile& file) {
  COTERIE_ASSIGN_OR_RETURN(const absl::string_view architecture,
                           file.GetString("general.architecture", ""));
  if (architecture != kArchitecture) {
    return absl::DataLossError(absl::StrCat("not a router file: file=", file.path(),
                                            ", general.architecture=", Quote(architecture)));
  }
  COTERIE_ASSIGN_OR_RETURN(const int64_t format, file.GetInt("router.format"));
  if (format != kFormat) {
    return absl::UnimplementedError(
        absl::StrCat("router files of this format are not supported: file=", file.path(),
                     ", router.format=", format, ", supported=", kFormat));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<std::string>> ReadDomains(const GgufFile& file) {
  COTERIE_ASSIGN_OR_RETURN(const auto names, file.GetStringArray("router.domains"));
  const std::set<absl::string_view> distinct(names.begin(), names.end());
  if (names.size() < 2 || names.size() > kMaxDomains || distinct.size() != names.size() ||
      distinct.contains("")) {
    return Damaged(file, absl::StrCat("router.domains must be 2 to ", kMaxDomains,
                                      " different names: domains=", names.size()));
  }
  return std::vector<std::string>(names.begin(), names.end());
}

// Those of the model, then those that were added to them.
absl::StatusOr<std::vector<std::string>> WithAdded(const GgufFile& file,
                                                   std::vector<std::string> domains) {
  if (!file.Has(kAddedKey)) return domains;
  COTERIE_ASSIGN_OR_RETURN(const auto names, file.GetStringArray(kAddedKey));
  for (const absl::string_view name : names) domains.emplace_back(name);
  const std::set<absl::string_view> distinct(domains.begin(), domains.end());
  if (domains.size() > kMaxDomains || distinct.size() != domains.size() || distinct.contains("")) {
    return Damaged(
        file,
        absl::StrCat(kAddedKey, " must be new and different names: domains=", domains.size()));
  }
  return domains;
}

absl::StatusOr<double> FloatIn(const GgufFile& file, absl::string_view key, double low,
                               double high) {
  COTERIE_ASSIGN_OR_RETURN(const double value, file.GetFloat(key));
  if (!(value >= low && value <= high)) {
    return Damaged(file, absl::StrCat("a value is not in [", low, ", ", high, "]: key=", key,
                                      ", value=", value));
  }
  return value;
}

// The labels of the rows: the router's own domains first, in their order, then others as they come.
std::vector<std::string> LabelsOf(absl::Span<const LabelledPrompt> rows) {
  std::set<std::string> present;
  for (const LabelledPrompt& row : rows) present.insert(row.label);
  std::vector<std::string> labels;
  for (const std::string& domain : DefaultDomains()) {
    if (present.erase(domain) > 0) labels.push_back(domain);
  }
  labels.insert(labels.end(), present.begin(), present.end());
  return labels;
}

// The fold in which each row is held out: whole sources together, rows without one on their own;
// the largest groups first, each to the fold with the fewest rows so far.
std::vector<int> FoldsOf(absl::Span<const LabelledPrompt> rows, int n_folds) {
  std::map<std::string, std::vector<size_t>> groups;
  for (size_t i = 0; i < rows.size(); ++i) {
    groups[rows[i].source.empty() ? absl::StrCat("\n", i) : rows[i].source].push_back(i);
  }
  std::vector<const std::vector<size_t>*> by_size;
  for (const auto& [source, group] : groups) by_size.push_back(&group);
  std::stable_sort(by_size.begin(), by_size.end(),
                   [](const auto* a, const auto* b) { return a->size() > b->size(); });
  std::vector<int> folds(rows.size());
  std::vector<size_t> sizes(n_folds, 0);
  for (const std::vector<size_t>* group : by_size) {
    const auto smallest = std::min_element(sizes.begin(), sizes.end());
    *smallest += group->size();
    for (const size_t i : *group) folds[i] = static_cast<int>(smallest - sizes.begin());
  }
  return folds;
}

// Logits of rows by models that saw neither them nor their source. Rows whose label only the
// held-out part has are left out: no model could know them.
absl::StatusOr<std::vector<LabelledLogits>> HeldOutLogits(absl::Span<const LexicalRow> rows,
                                                          absl::Span<const int> folds, int n_folds,
                                                          int n_labels) {
  std::vector<LabelledLogits> held_out;
  for (int fold = 0; fold < n_folds; ++fold) {
    std::vector<LexicalRow> kept;
    std::vector<bool> known(n_labels, false);
    for (size_t i = 0; i < rows.size(); ++i) {
      if (folds[i] == fold) continue;
      kept.push_back(rows[i]);
      known[rows[i].label] = true;
    }
    if (kept.empty()) continue;
    const std::unique_ptr<const LexicalModel> model = FitLexical(kept, n_labels);
    for (size_t i = 0; i < rows.size(); ++i) {
      if (folds[i] != fold || !known[rows[i].label]) continue;
      COTERIE_ASSIGN_OR_RETURN(ModelReading reading, model->Read(rows[i].cut, false));
      held_out.push_back({std::move(reading.logits), rows[i].label});
    }
  }
  return held_out;
}

// At most n of the rows, evenly taken.
absl::StatusOr<PromptList> AnchorsOf(absl::Span<const LexicalRow> rows, int64_t n,
                                     const DomainModel& model) {
  const auto most = static_cast<size_t>(
      std::clamp<int64_t>(n, 0, static_cast<int64_t>(Corrections::kMaxAnchors)));
  const size_t step = most == 0 ? rows.size() : (rows.size() + most - 1) / most;
  PromptList anchors;
  for (size_t i = 0; i < rows.size() && most > 0; i += step) {
    COTERIE_ASSIGN_OR_RETURN(ModelReading reading, model.Read(rows[i].cut, /*want_vector=*/true));
    anchors.push_back({std::move(reading.vector), std::move(reading.logits), rows[i].label});
  }
  return anchors;
}

}  // namespace

absl::StatusOr<std::unique_ptr<const Router>> Router::Load(absl::string_view path,
                                                           WorkerPool* pool) {
  COTERIE_ASSIGN_OR_RETURN(std::unique_ptr<const GgufFile> file, GgufFile::Open(path));
  absl::StatusOr<std::unique_ptr<const Router>> router = FromFile(std::move(file), pool);
  // The file is there: a key or tensor that is not, makes it a damaged one.
  if (absl::IsNotFound(router.status())) return absl::DataLossError(router.status().message());
  return router;
}

absl::StatusOr<std::unique_ptr<const Router>> Router::FromFile(std::unique_ptr<const GgufFile> file,
                                                               WorkerPool* pool) {
  COTERIE_RETURN_IF_ERROR(CheckFormat(*file));
  COTERIE_ASSIGN_OR_RETURN(std::vector<std::string> domains, ReadDomains(*file));
  Calibration calibration;
  COTERIE_ASSIGN_OR_RETURN(calibration.temperature,
                           FloatIn(*file, "router.temperature", 0.01, 100.0));
  COTERIE_ASSIGN_OR_RETURN(calibration.abstain_below,
                           FloatIn(*file, "router.abstain_below", 0.0, 1.0));
  COTERIE_ASSIGN_OR_RETURN(const absl::string_view version, file->GetString("router.version"));
  COTERIE_ASSIGN_OR_RETURN(const absl::string_view tier, file->GetString("router.tier"));
  std::string version_copy(version);
  const auto n_domains = static_cast<int64_t>(domains.size());
  const GgufFile& view = *file;

  std::shared_ptr<const DomainModel> model;
  std::unique_ptr<const GgufFile> read;  // The lexical model copies what it needs.
  if (tier == "encoder") {
    COTERIE_ASSIGN_OR_RETURN(model, Encoder::Open(std::move(file), n_domains, pool));
  } else if (tier == "lexical") {
    read = std::move(file);
    COTERIE_ASSIGN_OR_RETURN(model, LexicalModel::Open(*read, n_domains));
  } else {
    return Damaged(view,
                   absl::StrCat("router.tier is neither encoder nor lexical: tier=", Quote(tier)));
  }
  COTERIE_ASSIGN_OR_RETURN(domains, WithAdded(view, std::move(domains)));
  COTERIE_ASSIGN_OR_RETURN(Examples read_examples, Examples::From(view, *model));
  auto examples = std::make_shared<const Examples>(std::move(read_examples));
  const auto n_all = static_cast<int64_t>(domains.size());
  COTERIE_ASSIGN_OR_RETURN(PromptList corrected, ReadPrompts(view, kCorrections, *model, n_all,
                                                             Corrections::kMaxPrompts));
  Corrections corrections =
      Corrections(model->correction_reach(), examples->prompts()).With(std::move(corrected), n_all);
  return std::unique_ptr<const Router>(new Router(std::move(model), std::move(domains), calibration,
                                                  std::move(version_copy), std::move(examples),
                                                  std::move(corrections)));
}

absl::StatusOr<int64_t> Router::EstimateBytes(absl::string_view path, int n_workers) {
  COTERIE_ASSIGN_OR_RETURN(const std::unique_ptr<const GgufFile> file, GgufFile::Open(path));
  COTERIE_RETURN_IF_ERROR(CheckFormat(*file));
  COTERIE_ASSIGN_OR_RETURN(const absl::string_view tier, file->GetString("router.tier"));
  if (n_workers <= 0) n_workers = static_cast<int>(std::thread::hardware_concurrency());
  // Corrections and examples take at most three times the bytes they have in the file.
  constexpr int64_t kSlack = 64 << 10;
  int64_t correction_bytes = 0;
  for (const char* list : {"corrections", "examples"}) {
    for (const char* part : {"values", "indices", "logits", "labels", "counts"}) {
      const std::string name = absl::StrCat("router.", list, ".", part);
      const auto floats = file->GetFloatArray(name);
      const auto ints = file->GetIntArray(name);
      if (floats.ok()) correction_bytes += static_cast<int64_t>(floats->size()) * 4;
      if (ints.ok()) correction_bytes += static_cast<int64_t>(ints->size()) * 48;
    }
  }
  COTERIE_ASSIGN_OR_RETURN(const int64_t model_bytes,
                           tier == "encoder" ? Encoder::EstimateBytes(*file, std::max(1, n_workers))
                                             : LexicalModel::EstimateBytes(*file));
  return model_bytes + 3 * correction_bytes + kSlack;
}

absl::Status Router::Save(absl::string_view path) const {
  GgufWriter file;
  file.SetString("general.architecture", kArchitecture);
  file.SetInt("router.format", kFormat);
  file.SetString("router.tier", tier());
  file.SetString("router.version", version_);
  const auto added = domains_.begin() + model_->n_domains();
  file.SetStringArray("router.domains", std::vector<std::string>(domains_.begin(), added));
  if (added != domains_.end()) {
    file.SetStringArray(kAddedKey, std::vector<std::string>(added, domains_.end()));
  }
  file.SetFloat("router.temperature", calibration_.temperature);
  file.SetFloat("router.abstain_below", calibration_.abstain_below);
  examples_->AppendTo(file);
  AppendPrompts(corrections_.prompts(), kCorrections, file);
  model_->AppendTo(file);
  return file.Write(path);
}

absl::StatusOr<std::unique_ptr<const Router>> Router::Fit(absl::Span<const LabelledPrompt> rows,
                                                          const RouterFitOptions& options) {
  std::vector<std::string> labels = LabelsOf(rows);
  if (labels.size() < 2 || labels.size() > kMaxDomains || labels.front().empty()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "a router needs prompts of 2 to ", kMaxDomains,
        " labels, none of them empty: prompts=", rows.size(), ", labels=", labels.size()));
  }
  std::vector<LexicalRow> cut;
  std::vector<LabelledPrompt> kept;
  for (const LabelledPrompt& row : rows) {
    std::string text = CutPrompt(row.text);
    if (text.empty()) continue;
    const auto label = std::find(labels.begin(), labels.end(), row.label) - labels.begin();
    cut.push_back({std::move(text), static_cast<int>(label)});
    kept.push_back({"", row.label, row.source});
  }
  if (cut.empty()) return absl::InvalidArgumentError("no prompt can be read: nothing to fit on");
  const int n_labels = static_cast<int>(labels.size());
  Calibration calibration;
  if (options.n_folds >= 2) {
    COTERIE_ASSIGN_OR_RETURN(
        const std::vector<LabelledLogits> held_out,
        HeldOutLogits(cut, FoldsOf(kept, options.n_folds), options.n_folds, n_labels));
    const auto general = std::find(labels.begin(), labels.end(), kGeneralDomain);
    calibration.temperature = FitTemperature(held_out);
    calibration.abstain_below =
        FitAbstention(held_out, calibration.temperature,
                      general == labels.end() ? -1 : static_cast<int>(general - labels.begin()),
                      options.max_given_up);
  }
  std::shared_ptr<const DomainModel> model = FitLexical(cut, n_labels);
  COTERIE_ASSIGN_OR_RETURN(PromptList anchors, AnchorsOf(cut, options.n_anchors, *model));
  std::vector<std::string> no_texts(anchors.size());
  auto examples = std::make_shared<const Examples>(std::move(anchors), std::move(no_texts));
  Corrections corrections(model->correction_reach(), examples->prompts());
  return std::unique_ptr<const Router>(new Router(std::move(model), std::move(labels), calibration,
                                                  options.version, std::move(examples),
                                                  std::move(corrections)));
}

}  // namespace coterie
