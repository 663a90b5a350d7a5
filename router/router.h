#pragma once

// Which domain a prompt belongs to: a fine-tuned encoder (the router that ships) or a linear model
// over words and letters that is fitted on this machine in seconds, both calibrated, both able to
// abstain and to be corrected by the user.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

#include "core/formats/gguf_file.h"
#include "core/threads/worker_pool.h"
#include "router/corrections.h"
#include "router/domain_model.h"
#include "router/domain_scores.h"
#include "router/evaluation.h"
#include "router/examples.h"
#include "router/labelled_prompt.h"

namespace coterie {

struct RouterFitOptions {
  // Folds of the calibration: each part of the rows is predicted by a model that did not see it nor
  // anything of its source. Below 2: no calibration (temperature 1, no abstention).
  int n_folds = 3;
  // Of the rows held out, at most this share may be given up to the general domain if that keeps
  // prompts from a wrong specialist.
  double max_given_up = 0.1;
  std::string version = "lexical";
  // Of so many rows, evenly taken, the vectors are kept (not the texts): they hold their ground
  // against corrections.
  int64_t n_anchors = 300;
};

// Immutable and thread-safe; a correction makes a new router that shares the fitted model.
//
// Any bytes may be classified: what is not UTF-8 is dropped, of a long prompt the first 60 and last
// 25 words are read (router/prompt_text.h), and a prompt in which nothing can be read gives equal
// probabilities, the general domain first, and an abstention.
class Router {
 public:
  static constexpr size_t kMaxDomains = 256;

  // Opens a router file of either tier. The encoder's layers run on `pool`, which outlives the
  // router and all its corrected versions; without one they run in the caller. kNotFound for a
  // missing file, kDataLoss naming file and key for a damaged one, kUnimplemented for a file of a
  // later format.
  static absl::StatusOr<std::unique_ptr<const Router>> Load(absl::string_view path,
                                                            WorkerPool* pool = nullptr);

  // At least what memory_bytes() of this file's router will be on a pool of n_workers (0: one per
  // core of the machine): what to reserve before Load.
  static absl::StatusOr<int64_t> EstimateBytes(absl::string_view path, int n_workers = 0);

  // Fits the lexical tier. Labels are free; "general", if it is one, is where abstentions go.
  // kInvalidArgument if there are fewer than two labels, an empty label, or no readable prompt.
  static absl::StatusOr<std::unique_ptr<const Router>> Fit(absl::Span<const LabelledPrompt> rows,
                                                           const RouterFitOptions& options = {});

  ~Router();
  Router(const Router&) = delete;
  Router& operator=(const Router&) = delete;

  // Does no I/O. Prompts are classified one at a time; concurrent calls queue.
  absl::StatusOr<DomainScores> Classify(absl::string_view prompt) const;

  // Classify, and what decided: the pieces of the prompt without which the margin would be another,
  // and the nearest examples. For the encoder this takes up to 25 times as long.
  absl::StatusOr<DomainScores> Explain(absl::string_view prompt) const;

  // A router that gives these prompts their labels from now on, and prompts like them rather than
  // before; the others keep theirs. Prompts that were already right are remembered too: they hold
  // their ground against later corrections. kInvalidArgument, naming the known ones, for a label
  // that is not a domain of this router, or for a prompt in which nothing can be read.
  absl::StatusOr<std::unique_ptr<const Router>> Correct(
      absl::Span<const LabelledPrompt> rows) const;
  absl::StatusOr<std::unique_ptr<const Router>> Correct(absl::string_view text,
                                                        absl::string_view label) const;

  // A router with one more domain, known by examples: ten are enough for prompts much like them,
  // corrections add to it. kInvalidArgument for a name that is empty or taken, no examples, or one
  // in which nothing can be read.
  absl::StatusOr<std::unique_ptr<const Router>> AddDomain(
      absl::string_view name, absl::Span<const std::string> examples) const;

  // A router with these prompts as its examples, at most Corrections::kMaxAnchors, in place of
  // those it came with. The labels are domains that the model was fitted to. Only before
  // corrections (kFailedPrecondition).
  absl::StatusOr<std::unique_ptr<const Router>> WithExamples(
      absl::Span<const LabelledPrompt> rows) const;

  // Writes model, calibration, examples, added domains and corrections as one file, atomically.
  absl::Status Save(absl::string_view path) const;

  // Classifies every row; abstentions count as the general domain. Labels that this router does not
  // know count as errors. kInvalidArgument for no rows.
  absl::StatusOr<Evaluation> Evaluate(absl::Span<const LabelledPrompt> rows) const;

  const std::vector<std::string>& domains() const { return domains_; }
  // Of the fitted model, and the number of corrections.
  std::string version() const;
  // "encoder" or "lexical".
  absl::string_view tier() const { return model_->tier(); }
  int64_t n_corrections() const { return corrections_.size(); }
  // Everything this router holds: mapped weights in full, tables, scratch, corrections. The model's
  // part is shared between a router and its corrected versions.
  int64_t memory_bytes() const;

 private:
  struct Calibration {
    double temperature = 1.0;
    double abstain_below = 0.0;
  };

  Router(std::shared_ptr<const DomainModel> model, std::vector<std::string> domains,
         Calibration calibration, std::string version, std::shared_ptr<const Examples> examples,
         Corrections corrections);

  static absl::StatusOr<std::unique_ptr<const Router>> FromFile(
      std::unique_ptr<const GgufFile> file, WorkerPool* pool);
  absl::StatusOr<int> DomainIndex(absl::string_view label) const;
  int64_t n_domains() const { return static_cast<int64_t>(domains_.size()); }
  // What the model says of a cut prompt, and the same with the corrections.
  struct Logits {
    std::vector<double> model, corrected;  // [n_domains]
    PromptVector vector;                   // If asked for, or if there are corrections.
  };
  absl::StatusOr<Logits> LogitsOf(absl::string_view cut, bool want_vector) const;
  absl::StatusOr<PromptList> Read(absl::Span<const LabelledPrompt> rows) const;
  DomainScores Unreadable() const;
  DomainScores Scores(absl::string_view cut, const Logits& logits) const;
  Explanation Why(absl::string_view cut, const Logits& logits, const DomainScores& scores) const;
  absl::StatusOr<std::vector<DecidingFeature>> Occlude(absl::string_view cut, int domain,
                                                       int runner_up) const;
  int IndexOf(absl::string_view domain) const;

  const std::shared_ptr<const DomainModel> model_;
  const std::vector<std::string> domains_;  // Those of the model, then those added.
  const Calibration calibration_;
  const std::string version_;
  const std::shared_ptr<const Examples> examples_;
  const Corrections corrections_;
};

}  // namespace coterie
