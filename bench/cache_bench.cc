// What the expert cache costs a request that finds its expert in memory.
//   cache_bench [ROUNDS]
// Times the claim of a resident base, the release of its lease, and a snapshot of what is held,
// with 1, 4 and 64 bases, by one thread and by two at once, and prints nanoseconds an operation:
// the least of five rounds, and the middle one. It checks first that a claim is a hit on the base
// that was asked for, that it is charged, and that a release gives everything back. Bases have no
// bytes of their own: only the cache is timed.

#include <algorithm>
#include <array>
#include <barrier>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"

#include "bench/require.h"
#include "core/base/check.h"
#include "core/memory/memory_budget.h"
#include "experts/expert_cache.h"
#include "tests/experts/fake_base_source.h"

namespace coterie {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int64_t kBaseBytes = 1'000'000;
constexpr int64_t kKvBytes = 1'000;
constexpr int kRounds = 5;
constexpr int kMaxThreads = 2;
constexpr int kClaims = 2000;  // Leases that a thread holds at most.

// A cache that holds n bases, none of which is in use.
class FullCache {
 public:
  explicit FullCache(int n_bases)
      : budget_(n_bases * kBaseBytes + kMaxThreads * kClaims * kKvBytes) {
    for (int i = 0; i < n_bases; ++i) {
      bases_.push_back(absl::StrCat("sha256:", absl::Hex(i, absl::kZeroPad16)));
      source_.Add(bases_.back(), kBaseBytes);
      Claim(i);
    }
  }

  Lease Claim(int i) {
    const BaseId& base = bases_[static_cast<size_t>(i) % bases_.size()];
    return Require(cache_.Acquire({base, kKvBytes, 0}, absl::InfiniteFuture()));
  }
  size_t n_held() const { return cache_.Snapshot().bases.size(); }

  void Check() {
    const int64_t idle_bytes = budget_.Snapshot().used_bytes;
    COTERIE_CHECK(idle_bytes == static_cast<int64_t>(bases_.size()) * kBaseBytes, "all are held");
    for (int i = 0; i < static_cast<int>(bases_.size()); ++i) {
      const Lease lease = Claim(i);
      const auto& model = static_cast<const testing::FakeModel&>(lease.model());
      COTERIE_CHECK(model.alive() && model.base() == bases_[static_cast<size_t>(i)],
                    "a claim gives the base that was asked for");
      COTERIE_CHECK(lease.origin().how == LeaseOrigin::How::kHit, "it was there");
      COTERIE_CHECK(budget_.Snapshot().used_bytes == idle_bytes + kKvBytes, "it is charged");
    }
    COTERIE_CHECK(budget_.Snapshot().used_bytes == idle_bytes, "a release gives all back");
    int n_ready = 0;
    for (const BaseResidency& base : cache_.Snapshot().bases) {
      n_ready += base.state == BaseState::kReady && base.n_leases == 0;
    }
    COTERIE_CHECK(n_ready == static_cast<int>(bases_.size()), "a snapshot shows every base");
    COTERIE_CHECK(cache_.Stats().n_loads == static_cast<int64_t>(bases_.size()), "none came twice");
  }

 private:
  std::vector<BaseId> bases_;
  testing::FakeBaseSource source_;
  MemoryBudget budget_;
  ExpertCache cache_{budget_, source_};
};

double NanosecondsSince(Clock::time_point begin, int n) {
  return std::chrono::duration<double, std::nano>(Clock::now() - begin).count() / n;
}

// Nanoseconds an operation.
struct Cost {
  double claim = 0;
  double release = 0;
  double snapshot = 0;
};

// Leases are kept until all are claimed, so that claims and releases are timed apart.
Cost Measure(FullCache& cache, int first) {
  constexpr int kSnapshots = 1000;
  Cost cost;
  std::vector<Lease> leases;
  leases.reserve(kClaims);
  Clock::time_point begin = Clock::now();
  for (int i = 0; i < kClaims; ++i) leases.push_back(cache.Claim(first + i));
  cost.claim = NanosecondsSince(begin, kClaims);
  begin = Clock::now();
  leases.clear();
  cost.release = NanosecondsSince(begin, kClaims);
  begin = Clock::now();
  size_t n_held = 0;
  for (int i = 0; i < kSnapshots; ++i) n_held += cache.n_held();
  cost.snapshot = NanosecondsSince(begin, kSnapshots);
  COTERIE_CHECK(n_held % kSnapshots == 0 && n_held > 0, "every snapshot shows the same");
  return cost;
}

// The mean of what n threads measure at once.
Cost MeasureOn(FullCache& cache, int n_threads) {
  std::vector<Cost> costs(static_cast<size_t>(n_threads));
  std::barrier together(n_threads);
  std::vector<std::jthread> threads;
  for (int t = 0; t < n_threads; ++t) {
    threads.emplace_back([&, t] {
      together.arrive_and_wait();
      costs[static_cast<size_t>(t)] = Measure(cache, t);
    });
  }
  threads.clear();
  Cost mean;
  for (const Cost& cost : costs) {
    mean.claim += cost.claim / n_threads;
    mean.release += cost.release / n_threads;
    mean.snapshot += cost.snapshot / n_threads;
  }
  return mean;
}

void Print(const char* what, std::vector<double> rounds) {
  std::sort(rounds.begin(), rounds.end());
  std::printf("  %s %7.0f (%7.0f)", what, rounds.front(), rounds[rounds.size() / 2]);
}

void Run(int n_bases, int n_threads, int n_rounds) {
  FullCache cache(n_bases);
  cache.Check();
  std::vector<double> claims, releases, snapshots;
  for (int round = 0; round < n_rounds; ++round) {
    const Cost cost = MeasureOn(cache, n_threads);
    claims.push_back(cost.claim);
    releases.push_back(cost.release);
    snapshots.push_back(cost.snapshot);
  }
  cache.Check();
  std::printf("%2d bases, %d %s", n_bases, n_threads, n_threads == 1 ? "thread " : "threads");
  Print("claim", claims);
  Print("release", releases);
  Print("snapshot", snapshots);
  std::printf("\n");
}

}  // namespace
}  // namespace coterie

int main(int argc, char** argv) {
  const int n_rounds = argc > 1 ? std::max(1, std::atoi(argv[1])) : coterie::kRounds;
  std::printf("ns an operation: least (middle) of %d rounds\n", n_rounds);
  for (int n_threads = 1; n_threads <= coterie::kMaxThreads; ++n_threads) {
    for (const int n_bases : {1, 4, 64}) coterie::Run(n_bases, n_threads, n_rounds);
  }
}
