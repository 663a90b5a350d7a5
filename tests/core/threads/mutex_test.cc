#include "core/threads/mutex.h"

#include <thread>

#include "absl/time/clock.h"
#include "gtest/gtest.h"

namespace coterie {
namespace {

TEST(MutexTest, TryLockFailsWhileAnotherHoldsIt) {
  Mutex mutex;
  bool got_it = true;
  {
    MutexLock lock(mutex);
    std::thread([&] {
      got_it = mutex.TryLock();
      if (got_it) mutex.Unlock();
    }).join();
  }
  EXPECT_FALSE(got_it);
  ASSERT_TRUE(mutex.TryLock());
  mutex.Unlock();
}

TEST(CondVarTest, WaitUntilSaysThatTheDeadlinePassed) {
  Mutex mutex;
  CondVar never;
  MutexLock lock(mutex);
  bool notified = true;
  // A spurious wake-up is allowed: the deadline is what ends the loop.
  const absl::Time deadline = absl::Now() + absl::Milliseconds(5);
  while (notified) notified = never.WaitUntil(mutex, deadline);
  EXPECT_GE(absl::Now(), deadline);
}

TEST(CondVarTest, AnInfiniteDeadlineWaitsForTheNotification) {
  Mutex mutex;
  CondVar changed;
  bool ready = false;
  std::thread other([&] {
    {
      MutexLock lock(mutex);
      ready = true;
    }
    changed.NotifyAll();
  });
  {
    MutexLock lock(mutex);
    while (!ready) EXPECT_TRUE(changed.WaitUntil(mutex, absl::InfiniteFuture()));
  }
  other.join();
  EXPECT_TRUE(ready);
}

}  // namespace
}  // namespace coterie
