#include "core/memory/memory_budget.h"

#include <algorithm>
#include <mutex>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "core/base/check.h"

namespace coterie {

absl::string_view PurposeName(Purpose purpose) {
  static constexpr std::array<absl::string_view, kPurposeCount> kNames = {
      "expert_weights", "tokenizer", "kv_cache", "prefix_cache",
      "adapter",        "router",    "training", "scratch"};
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

// A plain std::mutex: memory/ stands below threads/, and the lock is never held across a call.
struct MemoryBudget::State {
  mutable std::mutex mutex;
  BudgetSnapshot ledger;
};

MemoryBudget::MemoryBudget(int64_t limit_bytes) : state_(std::make_unique<State>()) {
  state_->ledger.limit_bytes = std::max<int64_t>(0, limit_bytes);
}

MemoryBudget::~MemoryBudget() {
  COTERIE_CHECK(state_->ledger.used_bytes == 0, "a budget outlives its reservations");
}

absl::StatusOr<Reservation> MemoryBudget::Reserve(Purpose purpose, int64_t bytes) {
  if (bytes < 0) {
    return absl::InvalidArgumentError(absl::StrCat("a reservation is not negative: bytes=", bytes));
  }
  std::lock_guard<std::mutex> lock(state_->mutex);
  BudgetSnapshot& ledger = state_->ledger;
  if (bytes > ledger.limit_bytes) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "can never fit in the memory budget: purpose=", PurposeName(purpose), ", bytes=", bytes,
        ", limit_bytes=", ledger.limit_bytes));
  }
  if (bytes > ledger.limit_bytes - ledger.used_bytes) {
    return absl::UnavailableError(absl::StrCat(
        "does not fit in the memory budget now: purpose=", PurposeName(purpose), ", bytes=", bytes,
        ", used_bytes=", ledger.used_bytes, ", limit_bytes=", ledger.limit_bytes));
  }
  ledger.used_bytes += bytes;
  ledger.peak_bytes = std::max(ledger.peak_bytes, ledger.used_bytes);
  ledger.bytes_by_purpose[static_cast<size_t>(purpose)] += bytes;
  return Reservation(this, purpose, bytes);
}

void MemoryBudget::SetLimit(int64_t limit_bytes) {
  std::lock_guard<std::mutex> lock(state_->mutex);
  state_->ledger.limit_bytes = std::max<int64_t>(0, limit_bytes);
}

BudgetSnapshot MemoryBudget::Snapshot() const {
  std::lock_guard<std::mutex> lock(state_->mutex);
  return state_->ledger;
}

void MemoryBudget::Release(Purpose purpose, int64_t bytes) {
  std::lock_guard<std::mutex> lock(state_->mutex);
  BudgetSnapshot& ledger = state_->ledger;
  COTERIE_CHECK(bytes <= ledger.bytes_by_purpose[static_cast<size_t>(purpose)],
                "no more is given back than was charged");
  ledger.used_bytes -= bytes;
  ledger.bytes_by_purpose[static_cast<size_t>(purpose)] -= bytes;
}

}  // namespace coterie
