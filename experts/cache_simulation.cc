#include "experts/cache_simulation.h"

#include <algorithm>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <queue>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

#include "core/base/status_macros.h"
#include "core/memory/memory_budget.h"
#include "experts/eviction_policy.h"
#include "experts/expert_cache.h"
#include "experts/lease_request.h"

namespace coterie {
namespace {

// So many wait at the cache; the rest stands in line before it, as in the request queue.
constexpr size_t kMostWaiting = 64;

const absl::Time kStart = absl::UnixEpoch();

// When each base is asked for next, seen from a moment of the trace.
class Future {
 public:
  Future(absl::Span<const SimulatedBase> bases, absl::Span<const SimulatedRequest> requests) {
    for (size_t i = 0; i < requests.size(); ++i) {
      uses_[bases[static_cast<size_t>(requests[i].base)].id].push_back(i);
    }
  }

  void Pass(size_t n_arrived) { n_arrived_ = n_arrived; }

  size_t NextUse(const BaseId& base) const {
    const auto uses = uses_.find(base);
    if (uses == uses_.end()) return SIZE_MAX;
    const auto next = std::lower_bound(uses->second.begin(), uses->second.end(), n_arrived_);
    return next == uses->second.end() ? SIZE_MAX : *next;
  }

 private:
  std::map<BaseId, std::vector<size_t>> uses_;
  size_t n_arrived_ = 0;
};

class BeladyPolicy : public EvictionPolicy {
 public:
  explicit BeladyPolicy(const Future& future) : future_(future) {}

  std::vector<BaseId> PickVictims(absl::Span<const EntryView> entries,
                                  int64_t bytes) const override {
    std::vector<const EntryView*> order;
    for (const EntryView& entry : entries) {
      if (entry.evictable()) order.push_back(&entry);
    }
    std::stable_sort(order.begin(), order.end(), [&](const EntryView* a, const EntryView* b) {
      return future_.NextUse(a->id) > future_.NextUse(b->id);
    });
    std::vector<BaseId> victims;
    int64_t freed_bytes = 0;
    for (size_t i = 0; i < order.size() && freed_bytes < bytes; ++i) {
      victims.push_back(order[i]->id);
      freed_bytes += order[i]->bytes;
    }
    return freed_bytes < bytes ? std::vector<BaseId>() : victims;
  }

  std::string Reason(const EntryView&, absl::Time) const override { return "farthest next use"; }

 private:
  const Future& future_;
};

// One run. Everything happens on the calling thread, in order of time.
class Simulation : public BaseSource {
 public:
  Simulation(absl::Span<const SimulatedBase> bases, absl::Span<const SimulatedRequest> requests,
             int64_t budget_bytes, SimulatedPolicy policy)
      : requests_(requests), future_(bases, requests), budget_(budget_bytes) {
    for (const SimulatedBase& base : bases) bases_[base.id] = base;
    for (const SimulatedRequest& request : requests) {
      ids_.push_back(bases[static_cast<size_t>(request.base)].id);
    }
    ExpertCacheOptions options;
    if (policy == SimulatedPolicy::kLru) options.policy = std::make_shared<LruPolicy>();
    if (policy == SimulatedPolicy::kBelady) {
      options.policy = std::make_shared<BeladyPolicy>(future_);
    }
    if (policy != SimulatedPolicy::kCoterie) options.hold.load_times = 0;
    options.clock = [this] { return now_; };
    options.run_load = [this](const BaseId& base, std::function<void()> load) {
      const absl::Time begin = now_;
      At(begin + bases_.at(base).load_time, [this, begin, load = std::move(load)] {
        const absl::Time end = now_;
        now_ = begin;  // The cache measures how long the load takes.
        load();
        now_ = end;
      });
    };
    cache_ = std::make_unique<ExpertCache>(budget_, *this, std::move(options));
  }

  SimulationResult Run() {
    for (size_t i = 0; i < requests_.size(); ++i) {
      At(kStart + requests_[i].arrival, [this, i] {
        future_.Pass(i + 1);
        line_.push_back(i);
      });
    }
    while (!events_.empty()) {
      const absl::Time time = events_.top().time;
      now_ = std::max(now_, time);
      while (!events_.empty() && events_.top().time <= now_) {
        const std::function<void()> happen = std::move(events_.top().happen);
        events_.pop();
        happen();
      }
      Settle();
    }
    return Summary();
  }

  absl::StatusOr<BaseFootprint> Measure(const BaseId& base) override {
    return BaseFootprint{bases_.at(base).bytes, 0};
  }

  absl::StatusOr<std::shared_ptr<const BaseModel>> Load(const BaseId& base, LoadObserver&,
                                                        std::stop_token stop) override {
    now_ += bases_.at(base).load_time;
    if (stop.stop_requested()) return absl::CancelledError("stopped");
    return std::make_shared<BaseModel>();
  }

 private:
  struct Event {
    absl::Time time;
    uint64_t number;  // Of events at one time, the first to be planned happens first.
    mutable std::function<void()> happen;

    bool operator<(const Event& other) const {
      return std::tie(time, number) > std::tie(other.time, other.number);
    }
  };
  struct Waiting {
    size_t request;
    LeaseRequest lease;
    std::optional<uint64_t> seen;
    absl::Time alarm = absl::InfiniteFuture();  // For which an event is planned.
  };

  void At(absl::Time time, std::function<void()> happen) {
    events_.push({time, n_events_++, std::move(happen)});
  }

  // Lets everybody go on who can, until nobody can.
  void Settle() {
    for (bool someone = true; someone;) {
      someone = false;
      while (!line_.empty() && waiting_.size() < kMostWaiting) {
        const size_t i = line_.front();
        line_.pop_front();
        waiting_.push_back(
            {i, cache_->Begin({ids_[i], requests_[i].kv_bytes, 0}, absl::InfiniteFuture()),
             std::nullopt});
      }
      for (auto each = waiting_.begin(); each != waiting_.end();) {
        const bool due = each->seen != cache_->n_changes() || now_ >= each->lease.look_again();
        if (!due) {
          ++each;
          continue;
        }
        someone = true;
        each = Poll(*each) ? waiting_.erase(each) : std::next(each);
      }
    }
    for (Waiting& each : waiting_) {
      const absl::Time alarm = each.lease.look_again();
      if (alarm == absl::InfiniteFuture() || alarm == each.alarm) continue;
      each.alarm = alarm;
      At(alarm, [] {});
    }
  }

  bool Poll(Waiting& waiting) {
    waiting.seen = cache_->n_changes();
    auto result = waiting.lease.Poll();
    if (!result) return false;
    if (!result->ok()) {
      ++summary_.n_refused;
      return true;
    }
    const SimulatedRequest& request = requests_[waiting.request];
    waits_.push_back(now_ - (kStart + request.arrival));
    auto lease = std::make_shared<Lease>(**std::move(result));
    At(now_ + request.hold, [lease] { lease->Release(); });
    return true;
  }

  SimulationResult Summary() {
    const CacheStats stats = cache_->Stats();
    summary_.n_requests = static_cast<int64_t>(requests_.size());
    summary_.n_hits = stats.n_hits;
    summary_.n_joins = stats.n_joins;
    summary_.n_loads = stats.n_loads;
    summary_.loaded_bytes = stats.loaded_bytes;
    summary_.peak_bytes = stats.peak_bytes;
    summary_.length = now_ - kStart;
    if (waits_.empty()) return summary_;
    std::sort(waits_.begin(), waits_.end());
    absl::Duration sum;
    for (const absl::Duration wait : waits_) sum += wait;
    const auto quantile = [&](double part) {
      return waits_[static_cast<size_t>(part * static_cast<double>(waits_.size() - 1))];
    };
    summary_.mean_wait = sum / static_cast<int64_t>(waits_.size());
    summary_.wait_p50 = quantile(0.5);
    summary_.wait_p99 = quantile(0.99);
    return summary_;
  }

  const absl::Span<const SimulatedRequest> requests_;
  std::map<BaseId, SimulatedBase> bases_;
  std::vector<BaseId> ids_;  // Of the requests.
  Future future_;
  absl::Time now_ = kStart;
  MemoryBudget budget_;
  std::unique_ptr<ExpertCache> cache_;
  uint64_t n_events_ = 0;
  std::list<size_t> line_;
  std::list<Waiting> waiting_;
  std::vector<absl::Duration> waits_;
  SimulationResult summary_;
  std::priority_queue<Event> events_;  // Leases among them: gone before the cache.
};

absl::Status Check(absl::Span<const SimulatedBase> bases,
                   absl::Span<const SimulatedRequest> requests, int64_t budget_bytes) {
  if (budget_bytes <= 0) {
    return absl::InvalidArgumentError(absl::StrCat("a budget is above 0: bytes=", budget_bytes));
  }
  for (const SimulatedBase& base : bases) {
    if (base.bytes <= 0 || base.load_time < absl::ZeroDuration()) {
      return absl::InvalidArgumentError(
          absl::StrCat("a base has bytes and a load time: base=", base.id, ", bytes=", base.bytes,
                       ", load_time=", absl::FormatDuration(base.load_time)));
    }
  }
  absl::Duration last;
  for (size_t i = 0; i < requests.size(); ++i) {
    const SimulatedRequest& request = requests[i];
    const bool known = request.base >= 0 && request.base < static_cast<int>(bases.size());
    if (!known || request.kv_bytes < 0 || request.hold < absl::ZeroDuration() ||
        request.arrival < last || request.arrival == absl::InfiniteDuration()) {
      return absl::InvalidArgumentError(
          absl::StrCat("a request has a known base, bytes and times in order: request=", i,
                       ", base=", request.base, ", kv_bytes=", request.kv_bytes,
                       ", arrival=", absl::FormatDuration(request.arrival)));
    }
    last = request.arrival;
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<SimulatedPolicy> ParseSimulatedPolicy(absl::string_view name) {
  if (name == "coterie") return SimulatedPolicy::kCoterie;
  if (name == "lru") return SimulatedPolicy::kLru;
  if (name == "belady") return SimulatedPolicy::kBelady;
  return absl::InvalidArgumentError(
      absl::StrCat("a policy is \"coterie\", \"lru\" or \"belady\": policy=\"", name, "\""));
}

absl::StatusOr<SimulationResult> SimulateCache(absl::Span<const SimulatedBase> bases,
                                               absl::Span<const SimulatedRequest> requests,
                                               int64_t budget_bytes, SimulatedPolicy policy) {
  COTERIE_RETURN_IF_ERROR(Check(bases, requests, budget_bytes));
  return Simulation(bases, requests, budget_bytes, policy).Run();
}

}  // namespace coterie
