#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace coterie {

// What a reserved byte is for. Every byte of weights, KV, adapters, router, scratch and training
// belongs to exactly one purpose.
enum class Purpose : uint8_t {
  kExpertWeights,
  kTokenizer,
  kKvCache,
  kPrefixCache,
  kHeadScreen,
  kAdapter,
  kRouter,
  kTraining,
  kScratch,
  kUnreturned,  // Given back, but measured to be still resident.
};
inline constexpr int kPurposeCount = 10;

// Stable lower-case name, as in statistics: "expert_weights", "kv_cache", ...
absl::string_view PurposeName(Purpose purpose);

struct BudgetSnapshot {
  int64_t limit_bytes = 0;
  int64_t used_bytes = 0;
  int64_t peak_bytes = 0;  // Highest used_bytes so far.
  std::array<int64_t, kPurposeCount> bytes_by_purpose{};
};

class MemoryBudget;

// Bytes wanted for one purpose.
struct Charge {
  Purpose purpose;
  int64_t bytes;
};

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

// Frees memory on request. Called with no lock held.
class Reclaimer {
 public:
  virtual ~Reclaimer() = default;
  // Frees at least bytes_needed, or nothing if it cannot free that much. What was freed comes back
  // still charged: the caller passes it to MemoryBudget::Exchange, and nobody else can take it.
  virtual std::vector<Reservation> Reclaim(int64_t bytes_needed) = 0;
};

// Learns that a reservation which did not fit before may fit now.
class BudgetWatcher {
 public:
  virtual ~BudgetWatcher() = default;
  // Bytes were given back or the limit changed. Called on the thread that did it, with no lock of
  // the budget held; that thread may hold locks of its own, so this only signals.
  virtual void OnRoomChanged() = 0;
};

// The ledger of one device: charge before allocating, release after freeing. Thread-safe.
//
// A request that is refused gets one of two codes, both with the numbers in the message:
//   kResourceExhausted   it exceeds the limit itself: it can never fit.
//   kUnavailable         it would fit if something else were given back.
// Negative bytes are kInvalidArgument. A refused request changes nothing.
class MemoryBudget {
 public:
  explicit MemoryBudget(int64_t limit_bytes);
  ~MemoryBudget();
  MemoryBudget(const MemoryBudget&) = delete;
  MemoryBudget& operator=(const MemoryBudget&) = delete;

  // Charges `bytes` at once or not at all.
  absl::StatusOr<Reservation> Reserve(Purpose purpose, int64_t bytes);

  // Charges all of `charges` in one step, or none. The result has one reservation per charge, in
  // the same order. What is expendable is asked for what is missing, so not under a lock that
  // freeing it may want.
  absl::StatusOr<std::vector<Reservation>> ReserveAll(absl::Span<const Charge> charges);

  // As ReserveAll; what is missing then is asked of `reclaimer`, and what that frees goes to this
  // caller.
  absl::StatusOr<std::vector<Reservation>> ReserveAll(absl::Span<const Charge> charges,
                                                      Reclaimer& reclaimer);

  // Memory that goes before Reserve or ReserveAll refuses, for as long as they are used. Called
  // before any other thread uses the budget.
  void SetExpendable(Reclaimer& expendable) { expendable_ = &expendable; }

  // Gives back `given` and charges `charges` in one step, so that nobody else gets in between; an
  // excess becomes free. On success `given` is empty; on failure it is untouched. Without charges
  // this gives several reservations back together, and cannot fail. All of `given` belong to this
  // budget.
  absl::StatusOr<std::vector<Reservation>> Exchange(std::vector<Reservation>& given,
                                                    absl::Span<const Charge> charges);

  // Charges what is free now, at most `bytes`: a hold on free memory by a caller who is about to
  // free the rest. Possibly of 0 bytes.
  Reservation ReserveUpTo(Purpose purpose, int64_t bytes);

  // A lower limit refuses new reservations until enough has been given back; it frees nothing.
  void SetLimit(int64_t limit_bytes);

  BudgetSnapshot Snapshot() const;

  // Tells `watcher` of room from now on, for as long as it lives.
  void Watch(std::weak_ptr<BudgetWatcher> watcher);

 private:
  friend class Reservation;
  struct State;
  void Release(Purpose purpose, int64_t bytes);
  absl::StatusOr<std::vector<Reservation>> ReserveFrom(absl::Span<const Charge> charges,
                                                       Reclaimer& reclaimer);

  std::unique_ptr<State> state_;
  Reclaimer* expendable_ = nullptr;  // Null: there is none.
};

}  // namespace coterie
