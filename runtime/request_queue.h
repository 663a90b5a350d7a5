#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

#include "experts/base_source.h"

namespace coterie {

// Somebody waits for the answer, or nobody does.
enum class Priority : uint8_t { kInteractive, kBackground };
absl::StatusOr<Priority> ParsePriority(absl::string_view name);  // "interactive", "background"

// What it takes to answer from a base now.
enum class Warmth : uint8_t {
  kReady,   // It is loaded or being loaded.
  kFits,    // It can be loaded into free memory.
  kSwitch,  // Others have to leave first.
};

struct RequestQueueOptions {
  int max_waiting = 64;                              // Beside those that run; more are rejected.
  int max_running = 8;                               // Answers at once; they share the cores.
  absl::Duration max_batch_wait = absl::Seconds(2);  // See RequestQueue.
};

struct RequestQueueStats {
  int64_t n_waiting = 0;
  int64_t n_running = 0;
  absl::Duration oldest_wait;
  int64_t n_started = 0;
  int64_t n_rejected = 0;
  int64_t n_batched = 0;      // Started ahead of an earlier one, for its base was there.
  absl::Duration queue_time;  // Of all that started.
};

// Decides which request is answered next; decides only, and knows no thread and no clock.
//
//   - Interactive requests come before background ones, which start only while no interactive one
//     waits, leave one place free, and make no base leave while interactive ones run.
//   - Else in order of arrival, with one exception: while the first in line would make other bases
//     leave, requests whose base is there go first, until it has waited for max_batch_wait. So
//     A B A A becomes A A A B, and B's wait has a bound.
//   - One request at a time makes others leave; a second one that would stays in line.
//
// Thread-compatible. Times are the caller's and do not fall.
class RequestQueue {
 public:
  using Id = uint64_t;
  using Warmths = std::function<Warmth(const BaseId&)>;

  explicit RequestQueue(RequestQueueOptions options) : options_(options) {}

  // kUnavailable with the numbers if max_waiting wait already.
  absl::StatusOr<Id> Add(const BaseId& base, Priority priority, absl::Time now);

  // Whose turn it is now. They run until End.
  std::vector<Id> Start(absl::Time now, const Warmths& warmth);

  // A running request got its memory: what it made leave has left.
  void NoteGranted(Id id);
  // A waiting or running request is over.
  void End(Id id, absl::Time now);

  std::vector<BaseId> WaitingBases() const;  // Each once.
  bool idle() const { return waiting_.empty() && running_.empty(); }
  // How long nothing has waited or run; zero while something does.
  absl::Duration IdleFor(absl::Time now) const;
  RequestQueueStats Stats(absl::Time now) const;

 private:
  struct Waiting {
    BaseId base;
    Priority priority;
    absl::Time since;
  };
  struct Running {
    BaseId base;
    Priority priority;
    absl::Time since;
    bool switching;  // Makes others leave, and has not got its memory yet.
  };

  bool MayStart(const Waiting& request, Warmth warmth) const;
  std::map<Id, Waiting>::iterator Next(absl::Time now, const Warmths& warmth);
  absl::Duration RetryIn() const;

  const RequestQueueOptions options_;
  Id last_id_ = 0;
  std::map<Id, Waiting> waiting_;  // In order of arrival.
  std::map<Id, Running> running_;
  absl::Time idle_since_ = absl::InfiniteFuture();
  absl::Duration usual_time_;  // Moving average from start to end.
  RequestQueueStats stats_;
};

}  // namespace coterie
