#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"

#include "core/formats/chat_template.h"
#include "experts/sampler.h"
#include "runtime/request_queue.h"

namespace coterie {

// What a request says about sampling; the rest is the expert's own default.
struct SamplingOverrides {
  std::optional<float> temperature;
  std::optional<int> top_k;
  std::optional<float> top_p;
  std::optional<float> min_p;
  std::optional<float> repetition_penalty;
  std::optional<uint64_t> seed;
  int n_logprobs = -1;

  SamplingOptions Over(SamplingOptions base) const {
    base.temperature = temperature.value_or(base.temperature);
    base.top_k = top_k.value_or(base.top_k);
    base.top_p = top_p.value_or(base.top_p);
    base.min_p = min_p.value_or(base.min_p);
    base.repetition_penalty = repetition_penalty.value_or(base.repetition_penalty);
    if (seed.has_value()) base.seed = seed;
    base.n_logprobs = n_logprobs;
    return base;
  }
};

// One prompt to answer.
struct Request {
  std::vector<Message> messages;
  SamplingOverrides sampling;
  int64_t max_tokens = 256;
  std::vector<std::string> stop;  // Strings that end the answer; they are not part of it.
  std::string expert;             // Empty: the router chooses.
  // An adapter of the store to answer with: none: the expert's own; empty: without any.
  std::optional<std::string> adapter;
  // Requests with one name are one conversation: the router stays with an expert as long as the
  // topic does. Empty: a conversation of its own.
  std::string conversation;
  Priority priority = Priority::kInteractive;
  std::optional<bool> retrieval;  // Show examples from the log; none: as configured.
  bool log = true;    // Keep it on disk: in the interaction log, if there is one, and as a prefix.
  bool reuse = true;  // Take up what earlier prompts began with, and keep it for later ones.
  // Compute ahead what may repeat something of the conversation: the same answer, sooner. None: as
  // configured.
  std::optional<bool> lookup;
  absl::Time deadline = absl::InfiniteFuture();  // For getting memory, not for answering.
};

}  // namespace coterie
