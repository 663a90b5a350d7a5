#include "runtime/request_queue.h"

#include <algorithm>
#include <set>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace coterie {
namespace {

// Weight of the newest answer in the moving average of their times.
constexpr double kNewestTime = 0.2;

}  // namespace

absl::StatusOr<Priority> ParsePriority(absl::string_view name) {
  if (name == "interactive") return Priority::kInteractive;
  if (name == "background") return Priority::kBackground;
  return absl::InvalidArgumentError(
      absl::StrCat("a priority is \"interactive\" or \"background\": priority=\"", name, "\""));
}

absl::StatusOr<RequestQueue::Id> RequestQueue::Add(const BaseId& base, Priority priority,
                                                   absl::Time now) {
  // Who can start at once does not wait.
  const int64_t n_free = options_.max_running - static_cast<int64_t>(running_.size());
  if (static_cast<int64_t>(waiting_.size()) >= options_.max_waiting + n_free) {
    ++stats_.n_rejected;
    const RequestQueueStats stats = Stats(now);
    return absl::UnavailableError(absl::StrCat(
        "too many requests are waiting; try again later: n_waiting=", stats.n_waiting,
        ", max_waiting=", options_.max_waiting, ", n_running=", stats.n_running, ", oldest_wait=",
        absl::FormatDuration(absl::Trunc(stats.oldest_wait, absl::Milliseconds(1))),
        ", retry_in=", absl::FormatDuration(absl::Ceil(RetryIn(), absl::Seconds(1)))));
  }
  waiting_[++last_id_] = {base, priority, now};
  return last_id_;
}

std::vector<RequestQueue::Id> RequestQueue::Start(absl::Time now, const Warmths& warmth) {
  std::vector<Id> started;
  while (static_cast<int64_t>(running_.size()) < options_.max_running) {
    const auto next = Next(now, warmth);
    if (next == waiting_.end()) break;
    const auto& [id, request] = *next;
    const bool switching = warmth(request.base) == Warmth::kSwitch;
    stats_.queue_time += now - request.since;
    ++stats_.n_started;
    running_[id] = {request.base, request.priority, now, switching};
    started.push_back(id);
    waiting_.erase(next);
  }
  return started;
}

std::map<RequestQueue::Id, RequestQueue::Waiting>::iterator RequestQueue::Next(
    absl::Time now, const Warmths& warmth) {
  auto first = waiting_.end();
  for (const Priority priority : {Priority::kInteractive, Priority::kBackground}) {
    for (auto each = waiting_.begin(); each != waiting_.end(); ++each) {
      if (each->second.priority != priority) continue;
      const Warmth its = warmth(each->second.base);
      if (first == waiting_.end()) {
        first = each;
        const bool overdue = now - each->second.since >= options_.max_batch_wait;
        if (its != Warmth::kSwitch || overdue) {
          return MayStart(each->second, its) ? each : waiting_.end();
        }
      } else if (its == Warmth::kReady && MayStart(each->second, its)) {
        ++stats_.n_batched;
        return each;
      }
    }
    if (first == waiting_.end()) continue;
    return MayStart(first->second, Warmth::kSwitch) ? first : waiting_.end();
  }
  return first;
}

bool RequestQueue::MayStart(const Waiting& request, Warmth warmth) const {
  int64_t n_background = 0;
  bool interactive_runs = false;
  for (const auto& [id, running] : running_) {
    const bool background = running.priority == Priority::kBackground;
    n_background += background;
    interactive_runs = interactive_runs || !background;
    // The base of a request that switches is not there yet, but on its way.
    if (warmth == Warmth::kSwitch && running.switching && running.base != request.base)
      return false;
  }
  if (request.priority == Priority::kInteractive) return true;
  if (warmth == Warmth::kSwitch && interactive_runs) return false;
  return n_background < std::max(1, options_.max_running - 1);
}

void RequestQueue::NoteGranted(Id id) {
  const auto running = running_.find(id);
  if (running != running_.end()) running->second.switching = false;
}

void RequestQueue::End(Id id, absl::Time now) {
  waiting_.erase(id);
  const auto running = running_.find(id);
  if (running != running_.end()) {
    const absl::Duration took = now - running->second.since;
    const bool first = usual_time_ == absl::ZeroDuration();
    usual_time_ = first ? took : kNewestTime * took + (1 - kNewestTime) * usual_time_;
    running_.erase(running);
  }
  if (idle()) idle_since_ = now;
}

std::vector<BaseId> RequestQueue::WaitingBases() const {
  std::set<BaseId> bases;
  for (const auto& [id, request] : waiting_) bases.insert(request.base);
  return {bases.begin(), bases.end()};
}

absl::Duration RequestQueue::IdleFor(absl::Time now) const {
  return idle() ? std::max(absl::ZeroDuration(), now - idle_since_) : absl::ZeroDuration();
}

absl::Duration RequestQueue::RetryIn() const {
  return usual_time_ * static_cast<int64_t>(waiting_.size()) / std::max(1, options_.max_running);
}

RequestQueueStats RequestQueue::Stats(absl::Time now) const {
  RequestQueueStats stats = stats_;
  stats.n_waiting = static_cast<int64_t>(waiting_.size());
  stats.n_running = static_cast<int64_t>(running_.size());
  if (!waiting_.empty()) stats.oldest_wait = now - waiting_.begin()->second.since;
  return stats;
}

}  // namespace coterie
