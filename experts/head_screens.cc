#include "experts/head_screens.h"

#include <utility>

namespace coterie {
namespace {

// Of the budget: what stays free beside a new screen.
constexpr int64_t kFreePart = 4;

}  // namespace

void HeadScreens::Use(const Expert& expert, absl::FunctionRef<void(HeadScreen*)> body) {
  const std::shared_ptr<Entry> entry = Take(expert);
  body(entry == nullptr ? nullptr : entry->screen.get());
  if (entry == nullptr) return;
  {
    MutexLock lock(mutex_);
    entry->is_used = false;
  }
  changed_.NotifyAll();
}

std::shared_ptr<HeadScreens::Entry> HeadScreens::Take(const Expert& expert) {
  std::shared_ptr<Entry> orphan;  // Freed after the lock.
  MutexLock lock(mutex_);
  std::shared_ptr<Entry>& entry = entries_[&expert];
  // Another expert may have been where this one is now.
  if (entry != nullptr && entry->expert.expired()) orphan = std::exchange(entry, nullptr);
  if (entry == nullptr) entry = MakeLocked(expert);
  if (entry == nullptr) {
    entries_.erase(&expert);
    return nullptr;
  }
  if (entry->is_used) return nullptr;
  entry->is_used = true;
  return entry;
}

std::shared_ptr<HeadScreens::Entry> HeadScreens::MakeLocked(const Expert& expert) {
  const MatrixView& head = expert.weights().head.w;
  if (head.n_rows * RowBytes(head.type, head.n_cols) < least_head_bytes_) return nullptr;
  if (!HeadScreen::Pays(head) || expert.weak_from_this().expired()) return nullptr;
  const int64_t bytes = HeadScreen::Bytes(head);
  const BudgetSnapshot ledger = budget_.Snapshot();
  if (ledger.used_bytes + bytes > ledger.limit_bytes - ledger.limit_bytes / kFreePart) {
    return nullptr;
  }
  std::vector<Reservation> nothing_given;  // Not Reserve, which would ask what is expendable.
  auto charged = budget_.Exchange(nothing_given, {{Purpose::kHeadScreen, bytes}});
  if (!charged.ok()) return nullptr;
  auto entry = std::make_shared<Entry>();
  entry->expert = expert.weak_from_this();
  entry->charge = std::move(charged->front());
  entry->screen = std::make_unique<HeadScreen>(head);
  return entry;
}

void HeadScreens::DropOrphans() {
  std::vector<std::shared_ptr<Entry>> orphans;  // Freed after the lock.
  MutexLock lock(mutex_);
  for (auto it = entries_.begin(); it != entries_.end();) {
    if (it->second->expert.expired()) {
      orphans.push_back(std::move(it->second));
      it = entries_.erase(it);
    } else {
      ++it;
    }
  }
}

std::vector<Reservation> HeadScreens::Reclaim(int64_t bytes_needed) {
  std::vector<std::shared_ptr<Entry>> taken;
  {
    MutexLock lock(mutex_);
    if (HeldBytesLocked() < bytes_needed) return {};
    while (bytes_needed > 0) {
      taken.push_back(std::move(entries_.begin()->second));
      entries_.erase(entries_.begin());
      bytes_needed -= taken.back()->charge.bytes();
    }
    for (const std::shared_ptr<Entry>& entry : taken) {
      while (entry->is_used) changed_.Wait(mutex_);
    }
  }
  std::vector<Reservation> freed;
  for (const std::shared_ptr<Entry>& entry : taken) {
    entry->screen.reset();
    freed.push_back(std::move(entry->charge));
  }
  return freed;
}

int64_t HeadScreens::expendable_bytes() const {
  MutexLock lock(mutex_);
  return HeldBytesLocked();
}

int64_t HeadScreens::HeldBytesLocked() const {
  int64_t bytes = 0;
  for (const auto& [expert, entry] : entries_) bytes += entry->charge.bytes();
  return bytes;
}

}  // namespace coterie
