#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"

#include "core/memory/memory_budget.h"
#include "core/threads/mutex.h"
#include "experts/expendable_memory.h"
#include "experts/expert.h"
#include "experts/head_screen.h"

namespace coterie {

// The screens of experts that are answered from. Thread-safe.
//
// A screen is charged as Purpose::kHeadScreen. It takes free memory only, and only where a quarter
// of the budget stays free beside it, and goes when others need its bytes: an expert decodes
// without one as well, a little slower.
class HeadScreens : public ExpendableMemory {
 public:
  // The budget outlives the screens. Heads of fewer than least_head_bytes, which are read in no
  // time, get none.
  explicit HeadScreens(MemoryBudget& budget, int64_t least_head_bytes = 4 << 20)
      : budget_(budget), least_head_bytes_(least_head_bytes) {}

  // Calls body with the screen of an expert, or with null if there is none or another pass has it.
  // It stays until body returns; body reserves nothing.
  void Use(const Expert& expert, absl::FunctionRef<void(HeadScreen*)> body);

  // Frees those of experts that are gone.
  void DropOrphans();

  std::vector<Reservation> Reclaim(int64_t bytes_needed) override;
  int64_t expendable_bytes() const override;

 private:
  struct Entry {
    std::weak_ptr<const Expert> expert;
    Reservation charge;  // Given back after the screen is freed.
    std::unique_ptr<HeadScreen> screen;
    bool is_used = false;
  };
  using Entries = std::map<const Expert*, std::shared_ptr<Entry>>;

  std::shared_ptr<Entry> Take(const Expert& expert);
  std::shared_ptr<Entry> MakeLocked(const Expert& expert) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  int64_t HeldBytesLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  MemoryBudget& budget_;
  const int64_t least_head_bytes_;
  mutable Mutex mutex_;
  CondVar changed_;
  Entries entries_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace coterie
