#pragma once

// A random walk over everything an ExpertCache can be asked, on one thread and a clock that stands
// still between steps. Callbacks of the cache (a load under way, a destructor, an event) take steps
// of their own, so that the walk visits the states that other threads would see. The same seed is
// the same walk.

#include <algorithm>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <set>
#include <stop_token>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"

#include "core/memory/memory_budget.h"
#include "experts/expert_cache.h"
#include "experts/lease_request.h"

namespace coterie::testing {

class CacheModel {
 public:
  explicit CacheModel(uint64_t seed) : random_(seed), source_(*this), budget_(kLimitBytes) {
    for (int i = 0; i < kBases; ++i) {
      source_.scripts[Name(i)].footprint = {60 + 20 * i, 5, 1};
    }
    cache_ = std::make_unique<ExpertCache>(
        budget_, source_,
        ExpertCacheOptions{
            .clock = [this] { return now_; },
            .max_bypass = static_cast<int>(seed % 9),
            .first_backoff = absl::Milliseconds(100),
            .max_backoff = absl::Seconds(2),
            .max_bypass_wait = absl::Seconds(5),
            .keep_alive = seed % 3 == 0 ? absl::Seconds(20) : absl::InfiniteDuration(),
            .stall_after = absl::Seconds(30),
            .run_load = [this](const BaseId&,
                               std::function<void()> load) { loads_.push_back(std::move(load)); }});
    cache_->SetEventSink([this](const CacheEvent& event) { OnEvent(event); });
  }

  // Takes `n_steps` steps. Returns what went wrong first, or nothing.
  std::string Walk(int64_t n_steps) {
    for (int64_t i = 0; i < n_steps && error_.empty(); ++i) {
      const int64_t used_bytes = budget_.Snapshot().used_bytes;
      Step();
      Settle();
      CheckLedger(used_bytes);
      CheckLeases();
      if (i % 8 == 0) CheckWakeUps();
      if (!error_.empty()) error_ += absl::StrCat(" (after step ", i, ")");
    }
    if (error_.empty()) Drain();
    return error_;
  }

  int64_t n_leases() const { return n_leases_; }
  int64_t n_ended() const { return n_ended_; }
  CacheStats Stats() const { return cache_->Stats(); }

 private:
  static constexpr int kBases = 6;
  static constexpr int64_t kLimitBytes = 320;
  static constexpr size_t kMostRequests = 8;
  static constexpr int kDeepest = 2;

  struct Request {
    std::optional<LeaseRequest> lease;
    Need need;
    std::stop_source stop;
    std::optional<uint64_t> seen;  // The cache's n_changes at the last poll.
    bool polling = false;
    bool ended = false;
  };

  class Model : public BaseModel {
   public:
    Model(CacheModel& owner, BaseId base) : owner_(owner), base_(std::move(base)) {}
    ~Model() override {
      owner_.source_.Freed(*this);
      owner_.Interfere();
    }
    const BaseId& base() const { return base_; }

   private:
    CacheModel& owner_;
    const BaseId base_;
  };

  struct Script {
    BaseFootprint footprint;
    int n_failures = 0;
    int n_busy = 0;  // Loads under way and models alive.
  };

  class Source : public BaseSource {
   public:
    explicit Source(CacheModel& owner) : owner_(owner) {}

    absl::StatusOr<BaseFootprint> Measure(const BaseId& base) override {
      owner_.Interfere();
      return scripts.at(base).footprint;
    }

    absl::StatusOr<std::shared_ptr<const BaseModel>> Load(const BaseId& base,
                                                          LoadObserver& observer,
                                                          std::stop_token stop) override {
      Script& script = scripts.at(base);
      if (++script.n_busy > 1) owner_.Fail("two loads of one base: " + base);
      for (int part = 1; part <= 3; ++part) {
        owner_.Interfere();
        if (stop.stop_requested()) {
          --script.n_busy;
          return absl::CancelledError("stopped");
        }
        observer.OnProgress(part, 3);
      }
      if (script.n_failures > 0) {
        --script.n_failures;
        --script.n_busy;
        return absl::DataLossError("scripted");
      }
      auto model = std::make_shared<Model>(owner_, base);
      alive.insert(model.get());
      return model;
    }

    void Freed(const Model& model) {
      if (alive.erase(&model) != 1) owner_.Fail("freed twice: " + model.base());
      --scripts.at(model.base()).n_busy;
      for (const Lease& lease : owner_.leases_) {
        if (lease && &lease.model() == &model) owner_.Fail("freed under a lease: " + model.base());
      }
    }

    std::map<BaseId, Script> scripts;
    std::set<const BaseModel*> alive;

   private:
    CacheModel& owner_;
  };

  static BaseId Name(uint64_t i) { return absl::StrCat("base", i); }
  uint64_t Roll(uint64_t n) { return random_() % n; }
  BaseId AnyBase() { return Name(Roll(kBases)); }
  void Fail(std::string what) {
    if (error_.empty()) error_ = std::move(what);
  }

  // What another thread might do while the cache has called out.
  void Interfere() {
    if (draining_ || depth_ >= kDeepest || Roll(4) != 0) return;
    ++depth_;
    Step();
    if (Roll(2) == 0) Settle();
    --depth_;
  }

  void Step() {
    switch (Roll(16)) {
      case 0:
      case 1:
      case 2:
        return Ask();
      case 3:
      case 4:
      case 5:
        return RunLoad();
      case 6:
      case 7:
        return ReleaseLease();
      case 8:
        return Cancel();
      case 9:
        return Prefetch();
      case 10:
        return EvictSomething();
      case 11:
        return ChangePins();
      case 12:
        return ChangeLimit();
      case 13:
        return Train();
      case 14:
        return PassTime();
      default:
        return Spoil();
    }
  }

  void Ask() {
    if (requests_.size() >= kMostRequests) return;
    Request& request = requests_.emplace_back();
    request.need = {AnyBase(), static_cast<int64_t>(Roll(80)), static_cast<int64_t>(Roll(20))};
    const absl::Time deadline = Roll(6) == 0   ? absl::InfiniteFuture()
                                : Roll(6) == 0 ? now_
                                               : now_ + absl::Milliseconds(Roll(20'000));
    request.lease.emplace(cache_->Begin(request.need, deadline, request.stop.get_token()));
  }

  void RunLoad() {
    if (loads_.empty()) return;
    const size_t i = Roll(loads_.size());
    std::function<void()> load = std::move(loads_[i]);
    loads_.erase(loads_.begin() + static_cast<std::ptrdiff_t>(i));
    load();
  }

  void ReleaseLease() {
    if (leases_.empty()) return;
    auto lease = std::next(leases_.begin(), static_cast<std::ptrdiff_t>(Roll(leases_.size())));
    Lease last = std::move(*lease);
    leases_.erase(lease);
    last.Release();
  }

  void Cancel() {
    if (requests_.empty()) return;
    Request& request =
        *std::next(requests_.begin(), static_cast<std::ptrdiff_t>(Roll(requests_.size())));
    if (request.polling || request.ended) return;
    if (Roll(2) == 0) {
      request.stop.request_stop();
      request.seen.reset();  // As Acquire's stop callback does.
    } else {
      request.lease.reset();
      End(request);
    }
  }

  void Prefetch() { (void)cache_->Prefetch(AnyBase()); }

  void EvictSomething() {
    if (Roll(3) == 0) {
      (void)cache_->EvictOne("a walk");
    } else {
      (void)cache_->Evict(AnyBase());
    }
  }

  void ChangePins() {
    const BaseId base = AnyBase();
    if (!pins_.empty() && Roll(2) == 0) {
      const BaseId pinned = *pins_.begin();
      pins_.erase(pinned);
      if (!cache_->Unpin(pinned).ok()) Fail("a pin was lost: " + pinned);
    } else if (pins_.size() < 2 && pins_.count(base) == 0 && cache_->Pin(base).ok()) {
      pins_.insert(base);
    }
  }

  void ChangeLimit() {
    budget_.SetLimit(Roll(4) != 0 ? kLimitBytes : static_cast<int64_t>(Roll(kLimitBytes)));
    if (Roll(2) == 0) cache_->EvictOvershoot();
  }

  void Train() {
    if (!training_.empty() || Roll(3) != 0) return training_.clear();
    auto reserved =
        budget_.ReserveAll({{Purpose::kTraining, static_cast<int64_t>(Roll(150))}}, *cache_);
    if (reserved.ok()) training_ = *std::move(reserved);
  }

  void PassTime() {
    now_ += absl::Milliseconds(Roll(Roll(8) == 0 ? 40'000 : 3'000));
    if (Roll(2) == 0) cache_->Tick();
  }

  void Spoil() {
    const BaseId base = AnyBase();
    Script& script = source_.scripts.at(base);
    if (Roll(2) == 0) {
      script.n_failures = static_cast<int>(Roll(3));
    } else {
      ++script.footprint.version;
    }
    cache_->SetKeepAlive(AnyBase(),
                         Roll(2) == 0 ? absl::InfiniteDuration() : absl::Seconds(Roll(60)));
  }

  bool IsDue(const Request& request) const {
    return !request.ended && !request.polling &&
           (request.seen != cache_->n_changes() || now_ >= request.lease->look_again());
  }

  // Polls whoever would have woken up, until all sleep.
  void Settle() {
    for (bool someone = true; someone && error_.empty();) {
      someone = false;
      for (auto request = requests_.begin(); request != requests_.end(); ++request) {
        if (!IsDue(*request)) continue;
        someone = true;
        Poll(*request);
      }
    }
    if (depth_ == 0) requests_.remove_if([](const Request& request) { return request.ended; });
  }

  // Returns whether the request ended.
  bool Poll(Request& request) {
    request.seen = cache_->n_changes();
    request.polling = true;
    std::optional<absl::StatusOr<Lease>> result = request.lease->Poll();
    request.polling = false;
    if (!result) return false;
    End(request);
    last_result_ = result->status();
    if (!result->ok()) {
      CheckError(result->status());
      return true;
    }
    ++n_leases_;
    const auto& model = static_cast<const Model&>((*result)->model());
    if (source_.alive.count(&model) == 0 || model.base() != request.need.base) {
      Fail("a lease on the wrong model: " + request.need.base);
    }
    leases_.push_back(**std::move(result));
    return true;
  }

  void End(Request& request) {
    request.ended = true;
    ++n_ended_;
  }

  void CheckError(const absl::Status& status) {
    switch (status.code()) {
      case absl::StatusCode::kCancelled:
      case absl::StatusCode::kDeadlineExceeded:
      case absl::StatusCode::kUnavailable:
      case absl::StatusCode::kResourceExhausted:
      case absl::StatusCode::kDataLoss:
        return;
      default:
        Fail(absl::StrCat("an odd error: ", status.ToString()));
    }
  }

  void CheckLedger(int64_t used_before_bytes) {
    const BudgetSnapshot ledger = budget_.Snapshot();
    // Above a lowered limit the use only falls.
    if (ledger.used_bytes > std::max(ledger.limit_bytes, used_before_bytes) &&
        ledger.used_bytes > kLimitBytes) {
      Fail(absl::StrCat("used ", ledger.used_bytes, " of ", ledger.limit_bytes));
    }
    if (ledger.peak_bytes > kLimitBytes) Fail(absl::StrCat("a peak of ", ledger.peak_bytes));
    int64_t known_bytes = 0;
    bool loading = false;
    for (const BaseResidency& base : cache_->Snapshot().bases) {
      if (base.state == BaseState::kEvicting) Fail("an eviction outlived its step: " + base.base);
      if (base.state != BaseState::kAbsent) known_bytes += base.bytes;
      loading = loading || base.state == BaseState::kLoading;
    }
    for (Lease& lease : leases_) known_bytes += lease.kv().bytes() + lease.scratch().bytes();
    for (const Reservation& reservation : training_) known_bytes += reservation.bytes();
    // While something loads, those who wait for it hold bytes too.
    if (loading ? ledger.used_bytes < known_bytes : ledger.used_bytes != known_bytes) {
      Fail(absl::StrCat("used ", ledger.used_bytes, ", accounted for ", known_bytes));
    }
  }

  void CheckLeases() {
    for (const Lease& lease : leases_) {
      if (source_.alive.count(&lease.model()) == 0) Fail("freed under a lease: " + lease.base());
    }
  }

  // Nobody who sleeps could have gone on: otherwise its wake-up was lost.
  void CheckWakeUps() {
    for (Request& request : requests_) {
      if (request.ended || !error_.empty()) continue;
      const uint64_t n_changes = cache_->n_changes();
      if (Poll(request)) {
        Fail(
            absl::StrCat("a wake-up was lost: ", request.need.base, ", ", last_result_.ToString()));
      }
      if (cache_->n_changes() != n_changes) Fail("a sleeper changed the world");
    }
    requests_.remove_if([](const Request& request) { return request.ended; });
  }

  void OnEvent(const CacheEvent& event) {
    if (event.kind == CacheEvent::Kind::kEvicted && event.why.empty()) {
      Fail("an eviction without a reason: " + event.base);
    }
    Interfere();
  }

  // With everything given back and enough room, every request ends and every byte returns.
  void Drain() {
    draining_ = true;
    training_.clear();
    for (const BaseId& base : pins_) (void)cache_->Unpin(base);
    for (auto& [base, script] : source_.scripts) script.n_failures = 0;
    budget_.SetLimit(kLimitBytes);
    for (int round = 0; round < 200 && (!requests_.empty() || !loads_.empty()); ++round) {
      now_ += absl::Seconds(3);
      while (!loads_.empty()) RunLoad();
      Settle();
      CheckLeases();
      leases_.clear();
    }
    if (!requests_.empty()) Fail(absl::StrCat(requests_.size(), " requests never ended"));
    requests_.clear();
    leases_.clear();
    cache_.reset();
    if (!source_.alive.empty()) Fail("a model outlived the cache");
    if (budget_.Snapshot().used_bytes != 0) Fail("bytes outlived the cache");
  }

  std::mt19937_64 random_;
  absl::Time now_ = absl::FromUnixSeconds(1'800'000'000);
  std::string error_;
  absl::Status last_result_;
  int depth_ = 0;
  bool draining_ = false;
  int64_t n_leases_ = 0;
  int64_t n_ended_ = 0;
  Source source_;
  MemoryBudget budget_;
  std::unique_ptr<ExpertCache> cache_;
  std::vector<std::function<void()>> loads_;
  std::vector<Reservation> training_;
  std::set<BaseId> pins_;
  std::list<Lease> leases_;
  std::list<Request> requests_;
};

}  // namespace coterie::testing
