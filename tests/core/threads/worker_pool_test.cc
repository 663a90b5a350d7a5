#include "core/threads/worker_pool.h"

#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace coterie {
namespace {

TEST(WorkerPoolTest, RunsEachPieceOnceOnAWorkerItHas) {
  WorkerPool pool(4);
  EXPECT_EQ(pool.n_workers(), 4);
  for (const int64_t n_pieces : {1, 2, 3, 4, 5, 64, 1001}) {
    std::vector<std::atomic<int>> n_runs(static_cast<size_t>(n_pieces));
    std::atomic<bool> strange_worker{false};
    pool.Run(n_pieces, [&](int64_t piece, int worker) {
      ++n_runs[static_cast<size_t>(piece)];
      if (worker < 0 || worker >= 4) strange_worker = true;
    });
    for (const std::atomic<int>& n : n_runs) ASSERT_EQ(n.load(), 1);
    EXPECT_FALSE(strange_worker);
  }
}

TEST(WorkerPoolTest, RunsNothingForNoPieces) {
  WorkerPool pool(2);
  pool.Run(0, [](int64_t, int) { FAIL(); });
  pool.Run(-1, [](int64_t, int) { FAIL(); });
}

TEST(WorkerPoolTest, AWorkerRunsOnePieceAtATime) {
  WorkerPool pool(3);
  std::vector<std::atomic<int>> n_inside(3);
  std::atomic<bool> overlapped{false};
  for (int phase = 0; phase < 200; ++phase) {
    pool.Run(50, [&](int64_t, int worker) {
      if (++n_inside[static_cast<size_t>(worker)] != 1) overlapped = true;
      --n_inside[static_cast<size_t>(worker)];
    });
  }
  EXPECT_FALSE(overlapped);
}

TEST(WorkerPoolTest, PiecesOfOnePhaseRunAtTheSameTime) {
  // Each piece waits for the other, so a pool that ran them one after another would hang here.
  WorkerPool pool(2);
  std::atomic<int> n_arrived{0};
  pool.Run(2, [&](int64_t, int) {
    ++n_arrived;
    while (n_arrived.load() < 2) std::this_thread::yield();
  });
  EXPECT_EQ(n_arrived.load(), 2);
}

TEST(WorkerPoolTest, AWorkerHasTheSamePiecesInEveryPhase) {
  WorkerPool pool(3);
  for (int phase = 0; phase < 100; ++phase) {
    std::atomic<int> n_arrived{0};
    std::atomic<bool> swapped{false};
    // No worker is free to take a piece of another's.
    pool.Run(3, [&](int64_t piece, int worker) {
      if (worker != piece) swapped = true;
      ++n_arrived;
      while (n_arrived.load() < 3) std::this_thread::yield();
    });
    ASSERT_FALSE(swapped);
  }
}

TEST(WorkerPoolTest, APieceMayWaitForOneOfALowerNumber) {
  WorkerPool pool(4);
  for (int phase = 0; phase < 100; ++phase) {
    std::vector<std::atomic<bool>> done(9);
    pool.Run(9, [&](int64_t piece, int) {
      for (int64_t i = 0; i < piece; ++i) done[static_cast<size_t>(i)].wait(false);
      done[static_cast<size_t>(piece)] = true;
      done[static_cast<size_t>(piece)].notify_all();
    });
    for (const std::atomic<bool>& each : done) ASSERT_TRUE(each.load());
  }
}

TEST(WorkerPoolTest, WritesOfOnePhaseAreSeenByTheCallerAndTheNext) {
  // Plain integers: ThreadSanitizer reports a missing order.
  WorkerPool pool(4);
  std::vector<int64_t> values(256, 1);
  for (int phase = 0; phase < 300; ++phase) {
    pool.Run(256, [&](int64_t piece, int) {
      const auto i = static_cast<size_t>(piece);
      values[i] += 1;
    });
    ASSERT_EQ(values[255], phase + 2);
  }
  pool.Run(64, [&](int64_t piece, int) {
    for (size_t i = 0; i < 4; ++i) values[static_cast<size_t>(piece) * 4 + i] = piece;
  });
  EXPECT_EQ(values[255], 63);
}

TEST(WorkerPoolTest, PhasesOfDifferentCallersTakeTurns) {
  WorkerPool pool(3);
  std::atomic<int> phase_inside{0};
  std::atomic<bool> mixed{false};
  std::atomic<int64_t> n_pieces{0};
  std::vector<std::thread> callers;
  for (int caller = 1; caller <= 3; ++caller) {
    callers.emplace_back([&, caller] {
      for (int phase = 0; phase < 150; ++phase) {
        pool.Run(8, [&](int64_t, int) {
          int expected = 0;
          if (!phase_inside.compare_exchange_strong(expected, caller) && expected != caller) {
            mixed = true;
          }
          // The last piece of a phase hands over.
          if (++n_pieces % 8 == 0) phase_inside = 0;
        });
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  EXPECT_FALSE(mixed);
  EXPECT_EQ(n_pieces.load(), 3 * 150 * 8);
}

TEST(WorkerPoolTest, WorkersThatFellAsleepWakeForTheNextPhase) {
  WorkerPool pool(2);
  for (int round = 0; round < 20; ++round) {
    // Well past the time that idle workers spin.
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    std::atomic<int> n_arrived{0};
    pool.Run(2, [&](int64_t, int) {
      ++n_arrived;
      while (n_arrived.load() < 2) std::this_thread::yield();
    });
    ASSERT_EQ(n_arrived.load(), 2);
  }
}

TEST(WorkerPoolTest, MoreWorkersThanCoresStillFinish) {
  WorkerPool pool(16);
  std::atomic<int64_t> sum{0};
  for (int phase = 0; phase < 50; ++phase) {
    pool.Run(100, [&](int64_t piece, int) { sum += piece; });
  }
  EXPECT_EQ(sum.load(), 50 * 4950);
}

TEST(WorkerPoolTest, ComesAndGoesAtAnyMoment) {
  for (int round = 0; round < 50; ++round) {
    WorkerPool pool(3);
    std::atomic<int> n_runs{0};
    if (round % 2 == 0) pool.Run(5, [&](int64_t, int) { ++n_runs; });
    EXPECT_EQ(n_runs.load(), round % 2 == 0 ? 5 : 0);
  }
}

TEST(WorkerPoolTest, WithoutACountItHasAWorkerPerCoreOfThisProcess) {
  const WorkerPool pool;
  EXPECT_GE(pool.n_workers(), 1);
  EXPECT_LE(pool.n_workers(), static_cast<int>(std::thread::hardware_concurrency()));
}

}  // namespace
}  // namespace coterie
