#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace coterie {

// What a reserved byte is for. Every byte of weights, KV, adapters, router, scratch and training
// belongs to exactly one purpose.
enum class Purpose : uint8_t {
  kExpertWeights,
  kTokenizer,
  kKvCache,
  kPrefixCache,
  kAdapter,
  kRouter,
  kTraining,
  kScratch,
};
inline constexpr int kPurposeCount = 8;

// Stable lower-case name, as in statistics: "expert_weights", "kv_cache", ...
absl::string_view PurposeName(Purpose purpose);

struct BudgetSnapshot {
  int64_t limit_bytes = 0;
  int64_t used_bytes = 0;
  int64_t peak_bytes = 0;  // Highest used_bytes so far.
  std::array<int64_t, kPurposeCount> bytes_by_purpose{};
};

// Frees memory on request. Called with no lock held.
class Reclaimer {
 public:
  virtual ~Reclaimer() = default;
  // Frees at least bytes_needed if it can and returns how many bytes it gave back to the budget.
  virtual int64_t Reclaim(int64_t bytes_needed) = 0;
};

class MemoryBudget;

// Bytes charged to a budget, given back on destruction. Move-only, thread-compatible. The budget
// outlives its reservations.
class Reservation {
 public:
  Reservation() = default;
  Reservation(Reservation&& other) noexcept;
  Reservation& operator=(Reservation&& other) noexcept;
  ~Reservation();

  int64_t bytes() const { return bytes_; }
  Purpose purpose() const { return purpose_; }

  // Gives back all but `bytes`. Requires 0 <= bytes <= bytes().
  void ShrinkTo(int64_t bytes);
  // Moves `bytes` of this charge into a reservation of its own. Requires 0 <= bytes <= bytes().
  Reservation Split(int64_t bytes);
  // Gives everything back now.
  void Release() { ShrinkTo(0); }

 private:
  friend class MemoryBudget;
  Reservation(MemoryBudget* budget, Purpose purpose, int64_t bytes)
      : budget_(budget), purpose_(purpose), bytes_(bytes) {}

  MemoryBudget* budget_ = nullptr;
  Purpose purpose_ = Purpose::kScratch;
  int64_t bytes_ = 0;
};

// The ledger of one device: charge before allocating, release after freeing. Thread-safe.
class MemoryBudget {
 public:
  explicit MemoryBudget(int64_t limit_bytes);
  ~MemoryBudget();
  MemoryBudget(const MemoryBudget&) = delete;
  MemoryBudget& operator=(const MemoryBudget&) = delete;

  // Charges `bytes` at once or not at all.
  //   kResourceExhausted   bytes exceed the limit itself: it can never fit.
  //   kUnavailable         it would fit if something else were given back.
  // Both messages carry the numbers.
  absl::StatusOr<Reservation> Reserve(Purpose purpose, int64_t bytes);

  // A lower limit refuses new reservations until enough has been given back; it frees nothing.
  void SetLimit(int64_t limit_bytes);

  BudgetSnapshot Snapshot() const;

 private:
  friend class Reservation;
  void Release(Purpose purpose, int64_t bytes);

  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace coterie
