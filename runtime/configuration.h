#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

#include "experts/expert_catalog.h"
#include "experts/sampler.h"
#include "experts/sequence_batch.h"
#include "router/dispatch.h"
#include "runtime/idle_training.h"
#include "runtime/request_queue.h"

namespace coterie {

// Which idle experts leave when others need their room.
enum class LeavingPolicy : uint8_t {
  kCoterie,  // What costs least waiting to have again, with holds after a load.
  kLru,      // The least recently used, without holds. For comparison.
};

// How memory is used.
struct CacheConfiguration {
  LeavingPolicy policy = LeavingPolicy::kCoterie;  // "coterie" or "lru", as `simulate` has them.
  // How long idle experts stay loaded; infinite: until others need the room.
  absl::Duration keep_alive = absl::InfiniteDuration();
  bool prefetch = false;  // Load the router's second choice into free memory when idle.
  bool pressure = true;   // Give idle experts up while the system is short of memory.
  // Of the budget that the beginnings of earlier prompts may take while it is free, [0, 1].
  double prefix_share = 0.125;
  // On disk, in the store, they are kept up to so many bytes; 0: not at all.
  int64_t prefix_disk_bytes = 0;
  // Copies of output heads in 4 bits that make decoding faster, in memory that is free.
  bool head_screens = true;
  std::string request_log;  // Absolute; a line per answer for `coterie simulate`; empty: none.
};

// What is kept of answers and learned from them.
struct LearningConfiguration {
  bool log = true;                 // Keep what was asked and answered, on this machine.
  std::string log_path;            // Absolute; empty: interactions.db in the store.
  int64_t log_bytes = 64'000'000;  // Of the log; at least 1 MB.
  std::string key_file;            // Absolute; encrypts the log. Empty: plain text.
  bool retrieval = false;          // Show accepted and edited answers to the expert as examples.
  int64_t retrieval_tokens = 512;  // Of such examples in one prompt, at most.
  std::string replay;              // Absolute; text that training is not to forget. May be empty.
  IdleTrainingOptions idle;        // train_when_idle, idle_minutes, least_feedback, only_on_ac
  // A paused training takes memory from idle experts again when nobody has asked for so long.
  absl::Duration resume_after = absl::Seconds(10);
};

// For `coterie serve`; only checked and kept here.
struct ServerConfiguration {
  std::string host = "127.0.0.1";
  int port = 8642;      // [0, 65535]; 0: any free one.
  std::string api_key;  // Empty: none asked for.
};

// One [[expert]] of the file.
struct ExpertConfiguration {
  std::string name;
  std::string model;  // Name of a model in the store, or an absolute path.
  std::string system_prompt;
  std::string chat_template;
  std::string adapter;
  std::map<std::string, double> domains;  // Replace the default quality of the domains named.
  std::optional<SamplingOptions> sampling;
  int context_tokens = 0;
  bool pinned = false;
  std::optional<absl::Duration> keep_alive;
  int line = 0;  // Where it begins in the file.
};

// What a coterie.toml says. Plain data; keys are named as in the file:
//
//   memory_budget = "2GiB"      # or bytes; default: half of the memory that is free
//   threads = 2                 # default: the number of cores
//   home = "~/models"           # the model store; default: $COTERIE_HOME, else ~/.cache/coterie
//   lookup = true               # compute ahead what may repeat something of the conversation
//   [router]                    # path, residency_bonus, sticky_bonus, second_price,
//                               # abstain_below
//   [server]                    # host, port, api_key
//   [cache]                     # keep_alive = "10m", policy, prefetch, pressure, prefix_share,
//                               # prefix_disk = "1GB", head_screens, request_log
//   [queue]                     # max_waiting, max_running, max_batch, batch_wait = "2s"
//   [learning]                  # log, log_path, log_bytes = "64MB", key_file, retrieval,
//                               # retrieval_tokens, replay, train_when_idle, idle_minutes,
//                               # least_feedback, only_on_ac
//   [[expert]]                  # name, model; then system_prompt, chat_template, adapter,
//                               # context_tokens, pinned, keep_alive, domains = {code = 0.7}, and
//                               # the fields of SamplingOptions but for n_logprobs
//
// Times are texts such as "1h30m", or seconds; a keep_alive may also be "forever" or -1.
// Paths may begin with ~ and are otherwise relative to the file's folder. A `model` with a slash or
// ending in .gguf is a path, any other is a name in the store.
struct Configuration {
  int64_t memory_budget_bytes = 0;
  int threads = 1;                      // [1, 1024]
  std::string home;                     // Absolute.
  bool lookup = true;                   // Of requests that do not say.
  std::string router_path;              // Absolute; empty: the router that ships.
  DispatchOptions dispatch;             // The bonuses and second_price, [0, 1] each.
  std::optional<double> abstain_below;  // [0, 1]; none: the router's own threshold.
  ServerConfiguration server;
  CacheConfiguration cache;
  RequestQueueOptions queue;
  SequenceBatchOptions batch;      // [queue] max_batch: its max_sequences.
  LearningConfiguration learning;  // log_path: $COTERIE_INTERACTIONS if set.
  // Empty: every model of the store is an expert, and every adapter of the store on its base.
  std::vector<ExpertConfiguration> experts;
  std::string source;  // The file, for messages; empty without one.

  static absl::StatusOr<Configuration> Default();

  // kNotFound or kInvalidArgument; everything that is wrong in the text reads "file:line: [table]
  // key: what is wrong, what is allowed", and an unknown key comes with the nearest one known.
  static absl::StatusOr<Configuration> Load(absl::string_view path);
  // The same from text; `name` stands in messages and its folder is that of relative paths.
  static absl::StatusOr<Configuration> Parse(absl::string_view text, absl::string_view name);

  // The experts of this configuration, with problems of the store. kNotFound for a model that does
  // not exist, naming file, line and expert.
  absl::StatusOr<ExpertCatalog> Catalog() const;
};

}  // namespace coterie
