// How an ExpertCache measures and loads bases.

#include <algorithm>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

#include "core/base/status_macros.h"
#include "experts/expert_cache.h"
#include "experts/expert_cache_state.h"

namespace coterie {
namespace {

// Weight of the newest measurement in the moving average of load times.
constexpr double kNewestLoad = 0.3;

}  // namespace

// Tells the event sink how far a load has come.
class ExpertCache::ProgressReporter : public LoadObserver {
 public:
  ProgressReporter(ExpertCache& cache, LoadJob& job) : cache_(cache), job_(job) {}

  void OnProgress(int64_t done_bytes, int64_t total_bytes) override {
    // The source's total may be of the file; the ledger's is of the base.
    const double part =
        total_bytes > 0 ? static_cast<double>(done_bytes) / static_cast<double>(total_bytes) : 0.0;
    const int64_t done_of_base = std::clamp(
        static_cast<int64_t>(part * static_cast<double>(job_.bytes)), int64_t{0}, job_.bytes);
    CacheEvent event;
    {
      MutexLock lock(cache_.mutex_);
      if (done_of_base > job_.done_bytes.load()) job_.last_progress = cache_.options_.clock();
      job_.done_bytes.store(done_of_base);
      event = cache_.NewEventLocked(CacheEvent::Kind::kLoading, *job_.entry);
    }
    event.done_bytes = done_of_base;
    cache_.Emit(event);
  }

 private:
  ExpertCache& cache_;
  LoadJob& job_;
};

absl::StatusOr<BaseFootprint> ExpertCache::MeasureIfAbsent(const BaseId& base) {
  {
    MutexLock lock(mutex_);
    const auto found = entries_.find(base);
    if (found != entries_.end() && found->second->state != BaseState::kAbsent) {
      return found->second->footprint;
    }
  }
  COTERIE_ASSIGN_OR_RETURN(const BaseFootprint footprint, source_.Measure(base));
  int64_t sum = 0;
  if (footprint.weights_bytes < 0 || footprint.tokenizer_bytes < 0 ||
      __builtin_add_overflow(footprint.weights_bytes, footprint.tokenizer_bytes, &sum)) {
    return absl::DataLossError(absl::StrCat("a base has no such size: base=", base,
                                            ", weights_bytes=", footprint.weights_bytes,
                                            ", tokenizer_bytes=", footprint.tokenizer_bytes));
  }
  return footprint;
}

ExpertCache::Entry& ExpertCache::EntryLocked(const BaseId& base, const BaseFootprint& footprint) {
  std::unique_ptr<Entry>& entry = entries_[base];
  if (entry == nullptr) {
    entry = std::make_unique<Entry>();
    entry->id = base;
  }
  if (entry->state != BaseState::kAbsent) return *entry;
  if (entry->footprint.version != footprint.version) {  // Another file: what failed may work now.
    entry->n_failures = 0;
    entry->retry_at = absl::InfinitePast();
  }
  entry->footprint = footprint;
  return *entry;
}

absl::Status ExpertCache::Prefetch(const BaseId& base) {
  COTERIE_ASSIGN_OR_RETURN(const BaseFootprint footprint, MeasureIfAbsent(base));
  std::shared_ptr<LoadJob> job;
  {
    MutexLock lock(mutex_);
    Entry& entry = EntryLocked(base, footprint);
    const bool loading = entry.state == BaseState::kLoading && !entry.job->abandoned;
    if (entry.state == BaseState::kReady || loading) return absl::OkStatus();
    COTERIE_RETURN_IF_ERROR(BackoffLocked(entry));
    if (entry.state != BaseState::kAbsent || !queue_.empty()) {
      return absl::UnavailableError(absl::StrCat("requests come before a prefetch: base=", base,
                                                 ", n_waiting=", queue_.size()));
    }
    std::vector<Reservation> nothing_given;
    COTERIE_ASSIGN_OR_RETURN(
        std::vector<Reservation> charged,
        budget_.Exchange(nothing_given, {{Purpose::kExpertWeights, entry.footprint.weights_bytes},
                                         {Purpose::kTokenizer, entry.footprint.tokenizer_bytes}}));
    entry.weights = std::move(charged[0]);
    entry.tokenizer = std::move(charged[1]);
    job = entry.job = BeginJobLocked(entry);
    job->prefetch = true;
    entry.unused_prefetch = true;
    ++stats_.n_prefetches;
  }
  StartLoad(std::move(job));
  signal_->Raise();  // If it is pinned, others may never fit now.
  return absl::OkStatus();
}

std::shared_ptr<ExpertCache::LoadJob> ExpertCache::BeginJobLocked(Entry& entry) {
  auto job = std::make_shared<LoadJob>();
  job->entry = &entry;
  job->base = entry.id;
  job->bytes = entry.footprint.total_bytes();
  job->last_progress = options_.clock();
  entry.state = BaseState::kLoading;
  return job;
}

void ExpertCache::StartLoad(std::shared_ptr<LoadJob> job) {
  if (options_.run_load) {
    options_.run_load(job->base, [this, job] { RunLoad(*job); });
    return;
  }
  MutexLock lock(threads_mutex_);
  const auto ended = std::partition(loaders_.begin(), loaders_.end(),
                                    [](const Loader& loader) { return !loader.job->ended.load(); });
  for (auto loader = ended; loader != loaders_.end(); ++loader) loader->thread.join();
  loaders_.erase(ended, loaders_.end());
  std::thread thread([this, job] {
    RunLoad(*job);
    job->ended.store(true);
  });
  loaders_.push_back({std::move(thread), std::move(job)});
}

void ExpertCache::RunLoad(LoadJob& job) {
  ProgressReporter reporter(*this, job);
  reporter.OnProgress(0, job.bytes);
  const absl::Time start = options_.clock();
  auto model = source_.Load(job.base, reporter, job.stop.get_token());
  const absl::Duration took = options_.clock() - start;
  if (model.ok() && *model == nullptr) {
    model = absl::InternalError(absl::StrCat("a load ended without a base: base=", job.base));
  }
  if (model.ok()) {
    FinishLoad(job, *std::move(model), took);
  } else {
    FailLoad(job, model.status());
  }
}

void ExpertCache::FinishLoad(LoadJob& job, std::shared_ptr<const BaseModel> model,
                             absl::Duration took) {
  CacheEvent event;
  {
    MutexLock lock(mutex_);
    event = NewEventLocked(CacheEvent::Kind::kLoaded, *job.entry);
  }
  event.done_bytes = job.bytes;
  event.took = took;
  Emit(event);  // Before the leases: who gets one has been told.
  {
    MutexLock lock(mutex_);
    Entry& entry = *job.entry;
    entry.model = std::move(model);
    entry.state = BaseState::kReady;
    entry.job = nullptr;
    entry.loaded_at = options_.clock();
    const bool first = entry.reload_time == absl::ZeroDuration();
    entry.reload_time = first ? took : kNewestLoad * took + (1 - kNewestLoad) * entry.reload_time;
    entry.n_failures = 0;
    entry.retry_at = absl::InfinitePast();
    job.took = took;
    job.done = true;
    ++stats_.n_loads;
    stats_.loaded_bytes += job.bytes;
    stats_.load_time += took;
    stats_.n_reloads += churn_.NoteLoaded(job.base, job.bytes, took, entry.loaded_at);
  }
  signal_->Raise();
}

void ExpertCache::FailLoad(LoadJob& job, const absl::Status& status) {
  std::vector<Reservation> given;
  CacheEvent event;
  {
    MutexLock lock(mutex_);
    given.push_back(std::move(job.entry->weights));
    given.push_back(std::move(job.entry->tokenizer));
    event = NewEventLocked(CacheEvent::Kind::kLoadFailed, *job.entry);
    ForgetUnusedPrefetchLocked(*job.entry);
    if (job.abandoned) {
      if (job.stalled.ok()) ++stats_.n_cancelled_loads;  // A stall has been counted.
    } else {
      event.retry_in = NoteFailureLocked(*job.entry, status);
    }
  }
  // Who learns of the failure finds the ledger clean and has been told.
  (void)budget_.Exchange(given, {});
  event.done_bytes = job.done_bytes.load();
  event.status = status;
  Emit(event);
  {
    MutexLock lock(mutex_);
    job.entry->state = BaseState::kAbsent;
    job.entry->job = nullptr;
    job.entry->n_leases = 0;  // Those who waited hold nothing any more.
    job.done = true;
    job.status = CopyForOthers(status);
  }
  signal_->Raise();
}

void ExpertCache::ForgetUnusedPrefetchLocked(Entry& entry) {
  if (!entry.unused_prefetch) return;
  entry.unused_prefetch = false;
  ++stats_.n_prefetch_wasted;
  stats_.prefetch_wasted_bytes += entry.footprint.total_bytes();
}

absl::Duration ExpertCache::NoteFailureLocked(Entry& entry, const absl::Status& status) {
  absl::Duration backoff = options_.first_backoff;
  for (int64_t i = 0; i < entry.n_failures && backoff < options_.max_backoff; ++i) backoff *= 2;
  backoff = std::min(backoff, options_.max_backoff);
  const size_t hash = std::hash<std::string>()(absl::StrCat(entry.id, "#", entry.n_failures));
  backoff *= 1 - options_.backoff_jitter * static_cast<double>(hash % 1024) / 1024;
  ++entry.n_failures;
  ++stats_.n_failed_loads;
  entry.failure = CopyForOthers(status);
  entry.retry_at = options_.clock() + backoff;
  return backoff;
}

absl::Status ExpertCache::BackoffLocked(const Entry& entry) const {
  const absl::Duration left = entry.retry_at - options_.clock();
  if (entry.n_failures == 0 || left <= absl::ZeroDuration()) return absl::OkStatus();
  return absl::Status(entry.failure.code(),
                      absl::StrCat(entry.failure.message(), "; loading failed before: base=",
                                   entry.id, ", n_failures=", entry.n_failures,
                                   ", next_attempt_in=", absl::FormatDuration(left)));
}

}  // namespace coterie
