#include "runtime/request_scheduler.h"

#include <algorithm>
#include <atomic>
#include <future>
#include <optional>
#include <random>
#include <stop_token>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "tests/experts/fake_base_source.h"
#include "tests/status_matchers.h"

namespace coterie {
namespace {

using ::coterie::testing::Eventually;
using ::coterie::testing::IsOk;
using ::coterie::testing::StatusIs;
using ::testing::_;
using ::testing::HasSubstr;

using Turn = RequestScheduler::Turn;

RequestQueue::Warmths AlwaysReady() {
  return [](const BaseId&) { return Warmth::kReady; };
}

TEST(RequestSchedulerTest, ATurnIsGivenBackByItsDestructor) {
  RequestScheduler scheduler({.max_running = 1}, &AlwaysReady);
  for (int i = 0; i < 3; ++i) {
    EXPECT_THAT(scheduler.Enter("a", Priority::kInteractive, absl::InfiniteFuture()), IsOk());
  }
  EXPECT_EQ(scheduler.Stats().n_running, 0);
  EXPECT_EQ(scheduler.Stats().n_started, 3);
}

TEST(RequestSchedulerTest, AMovedTurnIsGivenBackOnce) {
  RequestScheduler scheduler({.max_running = 2}, &AlwaysReady);
  COTERIE_ASSERT_OK_AND_ASSIGN(
      Turn first, scheduler.Enter("a", Priority::kInteractive, absl::InfiniteFuture()));
  Turn second = std::move(first);
  EXPECT_EQ(scheduler.Stats().n_running, 1);
  { const Turn gone = std::move(second); }
  EXPECT_EQ(scheduler.Stats().n_running, 0);
}

TEST(RequestSchedulerTest, WhoIsNotServedByTheDeadlineLeavesWithTheNumbers) {
  RequestScheduler scheduler({.max_running = 1}, &AlwaysReady);
  COTERIE_ASSERT_OK_AND_ASSIGN(
      const Turn turn, scheduler.Enter("a", Priority::kInteractive, absl::InfiniteFuture()));
  const absl::Time deadline = absl::Now() + absl::Milliseconds(20);
  EXPECT_THAT(scheduler.Enter("b", Priority::kInteractive, deadline),
              StatusIs(absl::StatusCode::kDeadlineExceeded, HasSubstr("n_running=1")));
  EXPECT_GE(absl::Now(), deadline);
  EXPECT_EQ(scheduler.Stats().n_waiting, 0);
}

TEST(RequestSchedulerTest, ACancelledWaiterLeavesAndTheNextGoes) {
  RequestScheduler scheduler({.max_running = 1}, &AlwaysReady);
  auto turn =
      std::make_optional(*scheduler.Enter("a", Priority::kInteractive, absl::InfiniteFuture()));
  std::stop_source stop;
  auto cancelled = std::async(std::launch::async, [&] {
    return scheduler.Enter("a", Priority::kInteractive, absl::InfiniteFuture(), stop.get_token())
        .status();
  });
  ASSERT_TRUE(Eventually([&] { return scheduler.Stats().n_waiting == 1; }));
  auto patient = std::async(std::launch::async, [&] {
    return scheduler.Enter("a", Priority::kInteractive, absl::InfiniteFuture()).status();
  });
  ASSERT_TRUE(Eventually([&] { return scheduler.Stats().n_waiting == 2; }));
  stop.request_stop();
  EXPECT_THAT(cancelled.get(), StatusIs(absl::StatusCode::kCancelled, _));
  turn.reset();
  EXPECT_THAT(patient.get(), IsOk());
}

TEST(RequestSchedulerTest, AFullQueueRejectsBeforeAnythingIsAskedOrWaits) {
  std::atomic<int> n_asked{0};
  RequestScheduler scheduler({.max_waiting = 0, .max_running = 1}, [&] {
    ++n_asked;
    return [](const BaseId&) { return Warmth::kSwitch; };
  });
  COTERIE_ASSERT_OK_AND_ASSIGN(
      const Turn turn, scheduler.Enter("a", Priority::kInteractive, absl::InfiniteFuture()));
  const int n_asked_before = n_asked;
  EXPECT_THAT(scheduler.Enter("a", Priority::kInteractive, absl::InfiniteFuture()),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr("max_waiting=0")));
  EXPECT_EQ(n_asked, n_asked_before);
}

TEST(RequestSchedulerTest, MemoryIsLookedAtOnceForAllWhoWait) {
  std::atomic<int> n_looks{0};
  RequestScheduler scheduler({.max_waiting = 8, .max_running = 1}, [&] {
    ++n_looks;
    return [](const BaseId&) { return Warmth::kReady; };
  });
  COTERIE_ASSERT_OK_AND_ASSIGN(
      Turn turn, scheduler.Enter("a", Priority::kInteractive, absl::InfiniteFuture()));
  std::stop_source stop;
  std::vector<std::jthread> waiting;
  for (const char* base : {"b", "c", "d"}) {
    waiting.emplace_back([&, base] {
      (void)scheduler.Enter(base, Priority::kInteractive, absl::Now() + absl::Seconds(20),
                            stop.get_token());
    });
  }
  ASSERT_TRUE(Eventually([&] { return scheduler.Stats().n_waiting == 3 && n_looks == 4; }));
  turn.NoteGranted();  // May let one of three start, and none can.
  EXPECT_EQ(n_looks, 5);
  stop.request_stop();
}

// Many threads, for ThreadSanitizer too: everybody ends, and never do more run than may.
TEST(RequestSchedulerStressTest, EveryRequestEndsAndTheBoundsHold) {
  constexpr int kRunning = 3;
  RequestScheduler scheduler({.max_waiting = 6, .max_running = kRunning}, [] {
    return [](const BaseId& base) { return base == "base0" ? Warmth::kReady : Warmth::kSwitch; };
  });
  std::atomic<int> n_running{0};
  std::atomic<int> n_most{0};
  std::atomic<int> n_served{0};
  std::vector<std::jthread> threads;
  for (uint32_t t = 0; t < 8; ++t) {
    threads.emplace_back([&, t] {
      std::mt19937 random(t);
      for (int i = 0; i < 200; ++i) {
        std::stop_source stop;
        std::jthread canceller;
        if (random() % 16 == 0) {
          canceller = std::jthread([stop]() mutable { stop.request_stop(); });
        }
        const absl::Time deadline = random() % 3 == 0
                                        ? absl::InfiniteFuture()
                                        : absl::Now() + absl::Microseconds(random() % 2000);
        auto turn =
            scheduler.Enter(absl::StrCat("base", random() % 3),
                            random() % 2 == 0 ? Priority::kInteractive : Priority::kBackground,
                            deadline, stop.get_token());
        if (!turn.ok()) continue;
        const int n = ++n_running;
        n_most = std::max(n_most.load(), n);
        if (random() % 2 == 0) turn->NoteGranted();
        std::this_thread::yield();
        ++n_served;
        --n_running;
      }
    });
  }
  threads.clear();
  EXPECT_LE(n_most, kRunning);
  EXPECT_GT(n_served, 100);
  EXPECT_EQ(scheduler.Stats().n_running, 0);
  EXPECT_EQ(scheduler.Stats().n_waiting, 0);
}

}  // namespace
}  // namespace coterie
