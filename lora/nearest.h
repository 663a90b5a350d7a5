#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

#include "core/formats/chat_template.h"
#include "core/memory/memory_budget.h"
#include "core/threads/mutex.h"
#include "lora/interaction_log.h"
#include "lora/nearest_texts.h"

namespace coterie {

// Accepted and edited interactions of the log by what was asked, kept up with it. Thread-safe; the
// log and the budget outlive it. The index is charged to the budget, as part of the router (it too
// is there as long as the assistant); beyond kMaxInteractions, or what the budget has room for, the
// oldest are not found.
class NearestInteractions {
 public:
  static constexpr int64_t kMaxInteractions = 10'000;
  // Below this similarity two questions have nothing but common letters in common.
  static constexpr double kLeastSimilarity = 0.1;

  NearestInteractions(const InteractionLog& log, MemoryBudget& budget)
      : log_(log), budget_(budget) {}

  // At most n interactions of these experts under the same system prompt whose question is nearest
  // to the last one of `messages`, nearest first. Of one question the latest feedback counts; what
  // stands in `messages` already is left out.
  absl::StatusOr<std::vector<Interaction>> Find(absl::Span<const std::string> experts,
                                                absl::Span<const Message> messages, size_t n);

  // Reads what changed in the log since the last time; Find does so by itself, but takes longer
  // then.
  absl::Status Refresh();

 private:
  // Questions can be compared where expert and system prompt are the same.
  using Place = std::pair<std::string, std::string>;
  struct Known {
    int64_t change = 0;
    int64_t key = 0;                // In `texts`.
    NearestTexts* texts = nullptr;  // Null: it was rejected, and is not found.
  };

  absl::Status RefreshLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status Add(const std::string& id, int64_t change) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Remove(const Known& known) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::vector<NearestTexts::Match> NearestLocked(absl::Span<const std::string> experts,
                                                 const std::string& system_prompt,
                                                 absl::string_view asked, size_t n)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status Charge(int64_t more_bytes) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const InteractionLog& log_;
  MemoryBudget& budget_;
  Mutex mutex_;  // Held while the log is read: only those who retrieve wait.
  int64_t change_ ABSL_GUARDED_BY(mutex_) = 0;  // Of the log, when it was last read.
  std::map<std::string, Known> known_ ABSL_GUARDED_BY(mutex_);  // By id.
  std::map<int64_t, std::string> ids_ ABSL_GUARDED_BY(mutex_);  // By key.
  std::map<Place, NearestTexts> texts_ ABSL_GUARDED_BY(mutex_);
  Reservation bytes_ ABSL_GUARDED_BY(mutex_);
};

// Interactions as turns of a conversation: what was asked and what the user wanted to read, the
// nearest last. They go after the system prompt.
std::vector<Message> WithExamples(absl::Span<const Message> messages,
                                  absl::Span<const Interaction> nearest_first);

}  // namespace coterie
