#include "core/memory/memory_budget.h"

#include <algorithm>
#include <mutex>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

#include "core/base/check.h"
#include "core/base/status_macros.h"

namespace coterie {

absl::string_view PurposeName(Purpose purpose) {
  static constexpr std::array<absl::string_view, kPurposeCount> kNames = {
      "expert_weights", "tokenizer", "kv_cache", "prefix_cache", "head_screen",
      "adapter",        "router",    "training", "scratch",      "unreturned"};
  return kNames[static_cast<size_t>(purpose)];
}

Reservation::Reservation(Reservation&& other) noexcept
    : budget_(std::exchange(other.budget_, nullptr)),
      purpose_(other.purpose_),
      bytes_(std::exchange(other.bytes_, 0)) {}

Reservation& Reservation::operator=(Reservation&& other) noexcept {
  if (this != &other) {
    Release();
    budget_ = std::exchange(other.budget_, nullptr);
    purpose_ = other.purpose_;
    bytes_ = std::exchange(other.bytes_, 0);
  }
  return *this;
}

Reservation::~Reservation() { Release(); }

void Reservation::ShrinkTo(int64_t bytes) {
  COTERIE_CHECK(bytes >= 0 && bytes <= bytes_, "a reservation only shrinks");
  if (budget_ != nullptr && bytes < bytes_) budget_->Release(purpose_, bytes_ - bytes);
  bytes_ = bytes;
}

Reservation Reservation::Split(int64_t bytes) {
  COTERIE_CHECK(bytes >= 0 && bytes <= bytes_, "a split takes a part of the reservation");
  bytes_ -= bytes;
  return Reservation(budget_, purpose_, bytes);
}

namespace {

using WatcherList = std::vector<std::weak_ptr<BudgetWatcher>>;

absl::StatusOr<int64_t> SumOf(absl::Span<const Charge> charges) {
  int64_t sum = 0;
  for (const Charge& charge : charges) {
    if (charge.bytes < 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("a reservation is not negative: purpose=", PurposeName(charge.purpose),
                       ", bytes=", charge.bytes));
    }
    if (__builtin_add_overflow(sum, charge.bytes, &sum)) {
      return absl::ResourceExhaustedError(
          "can never fit in the memory budget: more than 2^63 bytes");
    }
  }
  return sum;
}

std::string Describe(absl::Span<const Charge> charges) {
  return absl::StrJoin(charges, ", ", [](std::string* out, const Charge& charge) {
    absl::StrAppend(out, PurposeName(charge.purpose), "=", charge.bytes);
  });
}

void Notify(const WatcherList& watchers) {
  for (const std::weak_ptr<BudgetWatcher>& known : watchers) {
    if (std::shared_ptr<BudgetWatcher> watcher = known.lock()) watcher->OnRoomChanged();
  }
}

}  // namespace

// A plain std::mutex: memory/ stands below threads/, and the lock is never held across a call.
struct MemoryBudget::State {
  // The status of charging `sum` more bytes after `given_bytes` were given back.
  absl::Status Admit(int64_t sum, int64_t given_bytes, absl::Span<const Charge> charges) const {
    if (sum > ledger.limit_bytes) {
      return absl::ResourceExhaustedError(
          absl::StrCat("can never fit in the memory budget: ", Describe(charges),
                       ", limit_bytes=", ledger.limit_bytes));
    }
    if (sum > ledger.limit_bytes - (ledger.used_bytes - given_bytes)) {
      return absl::UnavailableError(
          absl::StrCat("does not fit in the memory budget now: ", Describe(charges),
                       ", used_bytes=", ledger.used_bytes, ", limit_bytes=", ledger.limit_bytes));
    }
    return absl::OkStatus();
  }

  void Add(Purpose purpose, int64_t bytes) {
    ledger.used_bytes += bytes;
    ledger.bytes_by_purpose[static_cast<size_t>(purpose)] += bytes;
  }

  void Subtract(Purpose purpose, int64_t bytes) {
    COTERIE_CHECK(bytes <= ledger.bytes_by_purpose[static_cast<size_t>(purpose)],
                  "no more is given back than was charged");
    Add(purpose, -bytes);
  }

  mutable std::mutex mutex;
  BudgetSnapshot ledger;
  // Replaced, never changed, so that a notifier walks its copy without the lock.
  std::shared_ptr<const WatcherList> watchers = std::make_shared<WatcherList>();
};

MemoryBudget::MemoryBudget(int64_t limit_bytes) : state_(std::make_unique<State>()) {
  state_->ledger.limit_bytes = std::max<int64_t>(0, limit_bytes);
}

MemoryBudget::~MemoryBudget() {
  COTERIE_CHECK(state_->ledger.used_bytes == 0, "a budget outlives its reservations");
}

absl::StatusOr<Reservation> MemoryBudget::Reserve(Purpose purpose, int64_t bytes) {
  COTERIE_ASSIGN_OR_RETURN(std::vector<Reservation> reserved, ReserveAll({{purpose, bytes}}));
  return std::move(reserved.front());
}

absl::StatusOr<std::vector<Reservation>> MemoryBudget::ReserveAll(
    absl::Span<const Charge> charges) {
  std::vector<Reservation> nothing_given;
  absl::StatusOr<std::vector<Reservation>> reserved = Exchange(nothing_given, charges);
  if (expendable_ == nullptr || !absl::IsUnavailable(reserved.status())) return reserved;
  return ReserveFrom(charges, *expendable_);
}

absl::StatusOr<std::vector<Reservation>> MemoryBudget::ReserveAll(absl::Span<const Charge> charges,
                                                                  Reclaimer& reclaimer) {
  absl::StatusOr<std::vector<Reservation>> reserved = ReserveAll(charges);
  if (!absl::IsUnavailable(reserved.status())) return reserved;
  return ReserveFrom(charges, reclaimer);
}

// Frees what is missing and charges it in its place.
absl::StatusOr<std::vector<Reservation>> MemoryBudget::ReserveFrom(absl::Span<const Charge> charges,
                                                                   Reclaimer& reclaimer) {
  COTERIE_ASSIGN_OR_RETURN(const int64_t sum, SumOf(charges));
  // What is free is held first: otherwise another could take it while the rest is being freed.
  std::vector<Reservation> given;
  given.push_back(ReserveUpTo(charges.front().purpose, sum));
  const BudgetSnapshot now = Snapshot();
  const int64_t excess_bytes = std::max<int64_t>(0, now.used_bytes - now.limit_bytes);
  for (Reservation& freed : reclaimer.Reclaim(sum - given.front().bytes() + excess_bytes)) {
    given.push_back(std::move(freed));
  }
  return Exchange(given, charges);
}

absl::StatusOr<std::vector<Reservation>> MemoryBudget::Exchange(std::vector<Reservation>& given,
                                                                absl::Span<const Charge> charges) {
  COTERIE_ASSIGN_OR_RETURN(const int64_t sum, SumOf(charges));
  int64_t given_bytes = 0;
  for (const Reservation& reservation : given) {
    COTERIE_CHECK(reservation.budget_ == this || reservation.bytes_ == 0,
                  "what is given in exchange was charged to this budget");
    given_bytes += reservation.bytes_;
  }
  std::vector<Reservation> taken;
  taken.reserve(charges.size());
  std::shared_ptr<const WatcherList> watchers;
  {
    std::lock_guard<std::mutex> lock(state_->mutex);
    if (!charges.empty()) COTERIE_RETURN_IF_ERROR(state_->Admit(sum, given_bytes, charges));
    for (Reservation& reservation : given) {
      state_->Subtract(reservation.purpose_, std::exchange(reservation.bytes_, 0));
    }
    for (const Charge& charge : charges) {
      state_->Add(charge.purpose, charge.bytes);
      taken.push_back(Reservation(this, charge.purpose, charge.bytes));
    }
    state_->ledger.peak_bytes = std::max(state_->ledger.peak_bytes, state_->ledger.used_bytes);
    watchers = state_->watchers;
  }
  given.clear();
  if (given_bytes > sum) Notify(*watchers);
  return taken;
}

Reservation MemoryBudget::ReserveUpTo(Purpose purpose, int64_t bytes) {
  std::lock_guard<std::mutex> lock(state_->mutex);
  BudgetSnapshot& ledger = state_->ledger;
  const int64_t free_bytes = std::max<int64_t>(0, ledger.limit_bytes - ledger.used_bytes);
  const int64_t taken_bytes = std::clamp<int64_t>(bytes, 0, free_bytes);
  state_->Add(purpose, taken_bytes);
  ledger.peak_bytes = std::max(ledger.peak_bytes, ledger.used_bytes);
  return Reservation(this, purpose, taken_bytes);
}

void MemoryBudget::SetLimit(int64_t limit_bytes) {
  std::shared_ptr<const WatcherList> watchers;
  {
    std::lock_guard<std::mutex> lock(state_->mutex);
    state_->ledger.limit_bytes = std::max<int64_t>(0, limit_bytes);
    watchers = state_->watchers;
  }
  Notify(*watchers);
}

BudgetSnapshot MemoryBudget::Snapshot() const {
  std::lock_guard<std::mutex> lock(state_->mutex);
  return state_->ledger;
}

void MemoryBudget::Watch(std::weak_ptr<BudgetWatcher> watcher) {
  std::lock_guard<std::mutex> lock(state_->mutex);
  auto watchers = std::make_shared<WatcherList>();
  for (const std::weak_ptr<BudgetWatcher>& known : *state_->watchers) {
    if (!known.expired()) watchers->push_back(known);
  }
  watchers->push_back(std::move(watcher));
  state_->watchers = std::move(watchers);
}

void MemoryBudget::Release(Purpose purpose, int64_t bytes) {
  std::shared_ptr<const WatcherList> watchers;
  {
    std::lock_guard<std::mutex> lock(state_->mutex);
    state_->Subtract(purpose, bytes);
    watchers = state_->watchers;
  }
  Notify(*watchers);
}

}  // namespace coterie
