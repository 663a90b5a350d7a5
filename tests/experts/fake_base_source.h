#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <stop_token>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

#include "core/threads/mutex.h"
#include "experts/base_source.h"

namespace coterie::testing {

// Waits until `condition` holds, for at most ten seconds. Returns whether it did.
inline bool Eventually(const std::function<bool()>& condition) {
  const absl::Time end = absl::Now() + absl::Seconds(10);
  while (!condition()) {
    if (absl::Now() > end) return false;
    std::this_thread::sleep_for(std::chrono::microseconds(200));
  }
  return true;
}

// A base whose bytes know whether they are still there.
class FakeModel : public BaseModel {
 public:
  FakeModel(BaseId base, std::function<void(const BaseId&)> on_freed)
      : base_(std::move(base)), on_freed_(std::move(on_freed)) {}
  ~FakeModel() override {
    canary_ = 0;
    if (on_freed_) on_freed_(base_);
  }

  const BaseId& base() const { return base_; }
  bool alive() const { return canary_ == kAlive; }

 private:
  static constexpr uint64_t kAlive = 0x5AFE'5AFE'5AFE'5AFE;
  const BaseId base_;
  const std::function<void(const BaseId&)> on_freed_;
  volatile uint64_t canary_ = kAlive;
};

// Bases of scripted size. A load of a held base stays half done until Open. Thread-safe.
class FakeBaseSource : public BaseSource {
 public:
  void Add(const BaseId& base, int64_t weights_bytes, int64_t tokenizer_bytes = 0) {
    MutexLock lock(mutex_);
    scripts_[base].footprint = {weights_bytes, tokenizer_bytes};
  }
  void Hold(const BaseId& base) { SetHeld(base, true); }
  void Open(const BaseId& base) { SetHeld(base, false); }
  // The next loads of `base` end like this.
  void FailNext(const BaseId& base, absl::Status status, int n_loads = 1) {
    MutexLock lock(mutex_);
    scripts_[base].failures.insert(scripts_[base].failures.end(), n_loads, std::move(status));
  }
  // The file of `base` is replaced by another of the same size.
  void Change(const BaseId& base) {
    MutexLock lock(mutex_);
    ++scripts_[base].footprint.version;
  }
  // Called by the destructor of every model from now on.
  void OnFreed(std::function<void(const BaseId&)> on_freed) {
    MutexLock lock(mutex_);
    on_freed_ = std::move(on_freed);
  }
  // Called on the loading thread when a load has begun.
  void OnLoad(std::function<void(const BaseId&)> on_load) {
    MutexLock lock(mutex_);
    on_load_ = std::move(on_load);
  }

  int n_loads(const BaseId& base) const {
    MutexLock lock(mutex_);
    return scripts_.at(base).n_loads;
  }
  int n_loading(const BaseId& base) const {
    MutexLock lock(mutex_);
    return scripts_.at(base).n_loading;
  }
  int n_freed(const BaseId& base) const {
    MutexLock lock(mutex_);
    return scripts_.at(base).n_freed;
  }
  int n_measures() const { return n_measures_; }
  // Two loads of one base, or a load beside a model of it that still lived.
  bool loaded_twice() const { return loaded_twice_; }

  absl::StatusOr<BaseFootprint> Measure(const BaseId& base) override {
    ++n_measures_;
    MutexLock lock(mutex_);
    const auto found = scripts_.find(base);
    if (found == scripts_.end()) return absl::NotFoundError(absl::StrCat("no base ", base));
    return found->second.footprint;
  }

  absl::StatusOr<std::shared_ptr<const BaseModel>> Load(const BaseId& base, LoadObserver& observer,
                                                        std::stop_token stop) override {
    const std::stop_callback wake(stop, [this] {
      { MutexLock lock(mutex_); }
      changed_.NotifyAll();
    });
    const auto [total_bytes, on_load] = Begin(base);
    if (on_load) on_load(base);
    observer.OnProgress(total_bytes / 4, total_bytes);
    const absl::Status status = WaitWhileHeld(base, stop);
    if (!status.ok()) return status;
    observer.OnProgress(total_bytes, total_bytes);
    return std::make_shared<FakeModel>(base, [this](const BaseId& freed) { Freed(freed); });
  }

 private:
  struct Script {
    BaseFootprint footprint;
    bool held = false;
    std::vector<absl::Status> failures;
    int n_loads = 0;
    int n_loading = 0;
    int n_alive = 0;
    int n_freed = 0;
  };

  void SetHeld(const BaseId& base, bool held) {
    {
      MutexLock lock(mutex_);
      scripts_[base].held = held;
    }
    changed_.NotifyAll();
  }

  std::pair<int64_t, std::function<void(const BaseId&)>> Begin(const BaseId& base) {
    MutexLock lock(mutex_);
    Script& script = scripts_.at(base);
    ++script.n_loads;
    if (++script.n_loading > 1 || script.n_alive > 0) loaded_twice_ = true;
    return {script.footprint.total_bytes(), on_load_};
  }

  absl::Status WaitWhileHeld(const BaseId& base, const std::stop_token& stop) {
    MutexLock lock(mutex_);
    Script& script = scripts_.at(base);
    while (script.held && !stop.stop_requested()) changed_.Wait(mutex_);
    --script.n_loading;
    if (stop.stop_requested()) return absl::CancelledError("the load was stopped");
    if (!script.failures.empty()) {
      const absl::Status failure = script.failures.front();
      script.failures.erase(script.failures.begin());
      return failure;
    }
    ++script.n_alive;
    return absl::OkStatus();
  }

  void Freed(const BaseId& base) {
    std::function<void(const BaseId&)> on_freed;
    {
      MutexLock lock(mutex_);
      --scripts_.at(base).n_alive;
      ++scripts_.at(base).n_freed;
      on_freed = on_freed_;
    }
    if (on_freed) on_freed(base);
  }

  mutable Mutex mutex_;
  CondVar changed_;
  std::map<BaseId, Script> scripts_ ABSL_GUARDED_BY(mutex_);
  std::function<void(const BaseId&)> on_freed_ ABSL_GUARDED_BY(mutex_);
  std::function<void(const BaseId&)> on_load_ ABSL_GUARDED_BY(mutex_);
  std::atomic<int> n_measures_{0};
  std::atomic<bool> loaded_twice_{false};
};

}  // namespace coterie::testing
