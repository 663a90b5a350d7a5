#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"

#include "core/memory/memory_budget.h"
#include "core/threads/mutex.h"
#include "router/router.h"

namespace coterie {

// A prompt that the user put into another domain than the router did.
struct TaughtPrompt {
  std::string id;
  int64_t change = 0;  // Two of one id and change are the same.
  std::string text;
  std::string domain;

  friend bool operator==(const TaughtPrompt& a, const TaughtPrompt& b) {
    return a.id == b.id && a.change == b.change;
  }
};

// The router as the user has corrected it. What was taught is not stored here: it is handed over
// anew each time, so that what is forgotten elsewhere is forgotten here. Thread-safe; a decision
// under way keeps the version it began with.
class TaughtRouter {
 public:
  // What one more teaching may cost in time is bounded: only the newest count.
  static constexpr size_t kMaxPrompts = 200;

  // The pool of `router` and the budget outlive this.
  TaughtRouter(std::shared_ptr<const Router> router, MemoryBudget& budget)
      : untaught_(std::move(router)), budget_(budget), current_(untaught_) {}

  std::shared_ptr<const Router> Current() const;

  // Makes these, oldest first, all that was taught. Prompts that only came on top cost one encoding
  // each, otherwise all are encoded anew. Those of a domain that this router does not know, or in
  // which nothing can be read, are left out. Errors of MemoryBudget::Reserve; nothing has changed
  // then.
  absl::Status Teach(std::vector<TaughtPrompt> prompts);

 private:
  const std::shared_ptr<const Router> untaught_;
  MemoryBudget& budget_;

  Mutex teaching_;  // Held while a router is made; taken before mutex_.
  std::vector<TaughtPrompt> taught_ ABSL_GUARDED_BY(teaching_);
  Reservation bytes_ ABSL_GUARDED_BY(teaching_);

  mutable Mutex mutex_;
  std::shared_ptr<const Router> current_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace coterie
