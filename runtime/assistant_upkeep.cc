// What an Assistant does between answers.

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

#include "core/base/byte_size.h"
#include "runtime/assistant.h"
#include "runtime/free_memory.h"

namespace coterie {

absl::Status Assistant::SetMemoryBudget(int64_t bytes) {
  int64_t pinned_bytes = 0;
  for (const BaseResidency& base : cache_->Snapshot().bases) {
    if (base.n_pins > 0) pinned_bytes += base.bytes;
  }
  if (bytes < router_bytes_.bytes() + pinned_bytes) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the memory budget does not hold the router (", FormatBytes(router_bytes_.bytes()),
        ") and the pinned experts (", FormatBytes(pinned_bytes),
        "): budget=", bytes < 0 ? absl::StrCat(bytes) : FormatBytes(bytes)));
  }
  budget_.SetLimit(bytes);
  prefixes_.memory().TrimToShare();
  cache_->EvictOvershoot();
  return absl::OkStatus();
}

RequestQueue::Warmths Assistant::LookAtCache() const {
  return [this, cache = cache_->Snapshot()](const BaseId& base) { return WarmthOf(base, cache); };
}

Warmth Assistant::WarmthOf(const BaseId& base, const CacheSnapshot& cache) const {
  const BaseResidency* const known = cache.Find(base);
  if (known != nullptr &&
      (known->state == BaseState::kReady || known->state == BaseState::kLoading)) {
    return Warmth::kReady;
  }
  const absl::StatusOr<BaseProfile> profile = source_->Profile(base);
  if (!profile.ok()) return Warmth::kFits;  // It will be refused; nobody has to leave for it.
  const BudgetSnapshot ledger = budget_.Snapshot();
  const int64_t free_bytes =
      ledger.limit_bytes - ledger.used_bytes + expendable_.expendable_bytes();
  const int64_t need_bytes =
      profile->weight_bytes + profile->tokenizer_bytes + ShortAnswerBytes(*profile);
  return need_bytes <= free_bytes ? Warmth::kFits : Warmth::kSwitch;
}

// The expert that the router would have named next is the likeliest to be wanted next.
void Assistant::NoteSecondChoice(const Route& route) {
  if (!configuration_.cache.prefetch) return;
  const std::shared_ptr<const ExpertCatalog> catalog = Catalog();
  for (const ExpertScore& score : route.choice.scores) {
    if (score.expert == route.expert || !score.fits) continue;
    const absl::StatusOr<const ExpertSpec*> spec = catalog->Find(score.expert);
    if (!spec.ok()) continue;
    MutexLock lock(mutex_);
    second_choice_ = (*spec)->base_id;
    return;
  }
}

void Assistant::Upkeep() {
  cache_->Tick();
  screens_.DropOrphans();
  prefixes_.LookForForgotten();
  const RequestQueue::Warmths warmth = LookAtCache();
  adapters_->DropIdle([&](const BaseId& base) { return warmth(base) == Warmth::kReady; });
  // Another process may have been told what this one's router should know.
  if (interactions_ != nullptr && interactions_->LastChange().value_or(0) != taught_change_) {
    (void)TeachRouter();  // What fails now is tried again with the next change.
  }
  if (nearest_ != nullptr && configuration_.learning.retrieval) (void)nearest_->Refresh();
  if (configuration_.cache.pressure) {
    const absl::StatusOr<MemoryRoom> room = ReadMemoryRoom();
    if (room.ok()) {
      const BudgetSnapshot ledger = budget_.Snapshot();
      const int64_t mapped_bytes =
          ledger.bytes_by_purpose[static_cast<size_t>(Purpose::kExpertWeights)];
      const PressureGuard::Advice advice = guard_.Note(*room, mapped_bytes, absl::Now());
      memory_is_short_ = guard_.is_short();
      if (memory_is_short_) training_pause_.Ask();
      if (advice == PressureGuard::Advice::kEvict) {
        const int64_t bytes = expendable_.expendable_bytes();
        if (bytes > 0) {
          expendable_.Reclaim(bytes);
        } else {
          cache_->EvictOne(guard_.why());
        }
      }
    }
  }
  if (!memory_is_short_ && scheduler_.IdleFor() > absl::ZeroDuration()) PrefetchSecondChoice();
  TrainIfIdle();
}

void Assistant::PrefetchSecondChoice() {
  BaseId base;
  {
    MutexLock lock(mutex_);
    base.swap(second_choice_);
  }
  // No room, or a file that fails: the request that needs it will say so.
  if (!base.empty()) (void)cache_->Prefetch(base);
}

}  // namespace coterie
