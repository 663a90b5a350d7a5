#include "experts/prefix_cache.h"

#include <atomic>
#include <cstring>
#include <future>
#include <numeric>
#include <string>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "tests/experts/fake_base_source.h"
#include "tests/status_matchers.h"

namespace coterie {
namespace {

using ::coterie::testing::Eventually;
using ::testing::_;
using ::testing::IsEmpty;

constexpr int64_t kTokens = PrefixCache::kBlockTokens;

// One layer with one head of two values: a block is 512 bytes.
ArchSpec TwoValues() {
  ArchSpec spec;
  spec.n_layers = 1;
  spec.n_kv_heads = 1;
  spec.head_dim = 2;
  return spec;
}
constexpr int64_t kBlockBytes = 512;

std::vector<TokenId> Ids(int64_t n_blocks, TokenId first = 0) {
  std::vector<TokenId> ids(static_cast<size_t>(n_blocks * kTokens));
  std::iota(ids.begin(), ids.end(), first);
  return ids;
}

// Values that tell conversations and tokens apart, as passes would have written them.
KvCache Computed(const std::vector<TokenId>& ids, uint16_t salt = 0, int64_t capacity = 512) {
  KvCache kv(TwoValues(), capacity);
  for (size_t t = 0; t < ids.size(); ++t) {
    for (size_t i = 0; i < 2; ++i) {
      kv.keys(0, 0)[2 * t + i] = static_cast<uint16_t>(ids[t] * 4 + static_cast<int>(i) + salt);
      kv.values(0, 0)[2 * t + i] =
          static_cast<uint16_t>(ids[t] * 4 + 2 + static_cast<int>(i) + salt);
    }
  }
  kv.Extend(static_cast<int64_t>(ids.size()));
  return kv;
}

bool Equal(KvCache& a, KvCache& b, int64_t n_tokens) {
  const size_t bytes = static_cast<size_t>(n_tokens) * 2 * sizeof(uint16_t);
  return std::memcmp(a.keys(0, 0), b.keys(0, 0), bytes) == 0 &&
         std::memcmp(a.values(0, 0), b.values(0, 0), bytes) == 0;
}

class PrefixCacheTest : public ::testing::Test {
 protected:
  // Keeps a conversation as an answer that begins now would.
  void Keep(const std::vector<TokenId>& ids, const std::string& scope = "s", uint16_t salt = 0) {
    cache_.Keep(scope, ids, Computed(ids, salt), cache_.era());
  }
  int64_t Known(const std::vector<TokenId>& ids, const std::string& scope = "s",
                uint16_t salt = 0) {
    KvCache kv(TwoValues(), 512);
    cache_.Continue(scope, ids, kv);
    KvCache computed = Computed(ids, salt);
    EXPECT_TRUE(Equal(kv, computed, kv.n_tokens()));
    return kv.n_tokens();
  }
  int64_t charged() const {
    return budget_.Snapshot().bytes_by_purpose[static_cast<size_t>(Purpose::kPrefixCache)];
  }

  MemoryBudget budget_{16 * kBlockBytes};
  PrefixCache cache_{budget_, 0.5};  // Eight blocks.
};

TEST_F(PrefixCacheTest, ABlockHoldsTheSameWhateverTheCapacity) {
  const std::vector<TokenId> ids = Ids(2);
  KvCache from = Computed(ids), into(TwoValues(), 150);
  ASSERT_EQ(from.block_bytes(), kBlockBytes);
  std::vector<uint8_t> block(kBlockBytes);
  for (const int64_t index : {0, 1}) {
    from.ExportBlock(index, block.data());
    into.ImportBlock(block.data());
  }
  EXPECT_EQ(into.n_tokens(), 2 * kTokens);
  EXPECT_TRUE(Equal(from, into, 2 * kTokens));
}

TEST_F(PrefixCacheTest, TheLongestKnownBeginningIsTakenUpInWholeBlocks) {
  std::vector<TokenId> ids = Ids(3);
  ids.resize(ids.size() + 20);
  Keep(ids);
  EXPECT_EQ(Known(ids), 3 * kTokens);
  std::vector<TokenId> longer = ids;
  longer.resize(5 * kTokens, 7);
  EXPECT_EQ(Known(longer), 3 * kTokens);
  longer[2 * kTokens + 5] += 1;
  EXPECT_EQ(Known(longer), 2 * kTokens);
  longer[3] += 1;
  EXPECT_EQ(Known(longer), 0);
  EXPECT_EQ(Known({ids.begin(), ids.begin() + kTokens - 1}), 0);
}

TEST_F(PrefixCacheTest, WhatAKvCacheHoldsAlreadyIsContinued) {
  const std::vector<TokenId> ids = Ids(3);
  Keep(ids);
  KvCache computed = Computed(ids);
  KvCache kv = Computed({ids.begin(), ids.begin() + kTokens});
  cache_.Continue("s", ids, kv);
  EXPECT_EQ(kv.n_tokens(), 3 * kTokens);
  EXPECT_TRUE(Equal(kv, computed, 3 * kTokens));
  KvCache half = Computed({ids.begin(), ids.begin() + 10});
  cache_.Continue("s", ids, half);
  EXPECT_EQ(half.n_tokens(), 10);
}

TEST_F(PrefixCacheTest, AnotherScopeKnowsNothingOfIt) {
  Keep(Ids(2), "base=a adapter=home@1");
  EXPECT_EQ(Known(Ids(2), "base=a adapter=home@2"), 0);
  EXPECT_EQ(Known(Ids(2), "base=a"), 0);
  EXPECT_EQ(Known(Ids(2), "base=a adapter=home@1"), 2 * kTokens);
}

// A block that stood elsewhere attended to other tokens.
TEST_F(PrefixCacheTest, TheSameTokensAfterOthersAreAnotherBlock) {
  const std::vector<TokenId> one = Ids(2);
  std::vector<TokenId> other = Ids(1, 1000);
  other.insert(other.end(), one.begin() + kTokens, one.end());
  Keep(one, "s", 0);
  EXPECT_EQ(Known(other), 0);
  Keep(other, "s", 3);
  EXPECT_EQ(Known(other, "s", 3), 2 * kTokens);
  EXPECT_EQ(Known(one, "s", 0), 2 * kTokens);
}

TEST_F(PrefixCacheTest, EveryBlockIsChargedAndSharedOnesOnce) {
  Keep(Ids(3));
  EXPECT_EQ(charged(), 3 * kBlockBytes);
  std::vector<TokenId> branch = Ids(2);
  branch.resize(3 * kTokens, 9);
  Keep(branch);
  EXPECT_EQ(charged(), 4 * kBlockBytes);
  EXPECT_EQ(cache_.expendable_bytes(), 4 * kBlockBytes);
  cache_.Clear();
  EXPECT_EQ(charged(), 0);
  EXPECT_EQ(Known(Ids(3)), 0);
}

TEST_F(PrefixCacheTest, NoMoreIsTakenThanItsShareAndTheOldestGoesFirst) {
  Keep(Ids(3, 100));
  Keep(Ids(3, 300));
  EXPECT_EQ(Known(Ids(3, 100)), 3 * kTokens);  // Used last now.
  Keep(Ids(3, 500));
  EXPECT_EQ(charged(), 8 * kBlockBytes);
  EXPECT_EQ(Known(Ids(3, 100)), 3 * kTokens);
  EXPECT_EQ(Known(Ids(3, 300)), 2 * kTokens) << "the end of a chain goes before its beginning";
  EXPECT_EQ(Known(Ids(3, 500)), 3 * kTokens);
}

TEST_F(PrefixCacheTest, AChainThatIsLongerThanTheShareKeepsItsBeginning) {
  Keep(Ids(1, 5000));
  std::vector<TokenId> ids = Ids(7);
  Keep(ids);
  KvCache kv = Computed(Ids(12), 0, 1024);
  cache_.Keep("s", Ids(12), kv, cache_.era());
  EXPECT_EQ(charged(), 8 * kBlockBytes);
  KvCache known(TwoValues(), 1024);
  cache_.Continue("s", Ids(12), known);
  EXPECT_EQ(known.n_tokens(), 8 * kTokens);
}

TEST_F(PrefixCacheTest, OnlyFreeMemoryIsTakenAndItsOwnOldBlocksMakeRoom) {
  Keep(Ids(2, 100));
  COTERIE_ASSERT_OK_AND_ASSIGN(const Reservation others,
                               budget_.Reserve(Purpose::kExpertWeights, 13 * kBlockBytes));
  Keep(Ids(2, 300));
  EXPECT_EQ(Known(Ids(2, 300)), 2 * kTokens);
  EXPECT_EQ(Known(Ids(2, 100)), kTokens);
  EXPECT_EQ(budget_.Snapshot().used_bytes, 16 * kBlockBytes);
}

TEST_F(PrefixCacheTest, AShareOfZeroKeepsNothing) {
  PrefixCache none(budget_, 0);
  none.Keep("s", Ids(2), Computed(Ids(2)), none.era());
  EXPECT_EQ(charged(), 0);
}

TEST_F(PrefixCacheTest, ReclaimFreesWhatIsAskedForOrNothing) {
  Keep(Ids(4));
  EXPECT_THAT(cache_.Reclaim(4 * kBlockBytes + 1), IsEmpty());
  EXPECT_EQ(Known(Ids(4)), 4 * kTokens);
  const std::vector<Reservation> freed = cache_.Reclaim(kBlockBytes + 1);
  EXPECT_EQ(freed.size(), 2u);
  EXPECT_EQ(charged(), 4 * kBlockBytes) << "what was freed belongs to who asked";
  EXPECT_EQ(Known(Ids(4)), 2 * kTokens);
}

TEST_F(PrefixCacheTest, ReservationsOfTheBudgetAreServedFromIt) {
  budget_.SetExpendable(cache_);
  Keep(Ids(8));
  COTERIE_ASSERT_OK_AND_ASSIGN(const Reservation weights,
                               budget_.Reserve(Purpose::kExpertWeights, 10 * kBlockBytes));
  EXPECT_EQ(charged(), 6 * kBlockBytes);
  EXPECT_EQ(Known(Ids(8)), 6 * kTokens);
  EXPECT_THAT(budget_.Reserve(Purpose::kTraining, 7 * kBlockBytes),
              testing::StatusIs(absl::StatusCode::kUnavailable, _));
  EXPECT_EQ(charged(), 6 * kBlockBytes) << "what would not have helped stays";
}

TEST_F(PrefixCacheTest, ALoweredBudgetTakesItsPart) {
  Keep(Ids(8));
  budget_.SetLimit(8 * kBlockBytes);
  cache_.TrimToShare();
  EXPECT_EQ(charged(), 4 * kBlockBytes);
  cache_.TrimTo(0);
  EXPECT_EQ(charged(), 0);
}

TEST_F(PrefixCacheTest, WhatBeganBeforeItWasClearedIsNotKept) {
  const uint64_t before = cache_.era();
  cache_.Clear();
  cache_.Keep("s", Ids(2), Computed(Ids(2)), before);
  EXPECT_EQ(charged(), 0);
  // Nor what was being written meanwhile.
  EXPECT_FALSE(cache_.Add("s", Ids(1), kBlockBytes, cache_.era(), [&](uint8_t*) {
    cache_.Clear();
    return true;
  }));
  EXPECT_EQ(charged(), 0);
}

TEST_F(PrefixCacheTest, ABlockThatCouldNotBeWrittenIsNotThere) {
  EXPECT_FALSE(cache_.Add("s", Ids(1), kBlockBytes, cache_.era(), [](uint8_t*) { return false; }));
  EXPECT_EQ(Known(Ids(1)), 0);
  EXPECT_EQ(charged(), 0);
  EXPECT_FALSE(cache_.Add("s", Ids(2), kBlockBytes, cache_.era(), [](uint8_t*) { return true; }))
      << "without the block before it";
}

TEST_F(PrefixCacheTest, WhoReclaimsGetsWhatIsBeingReadAndWritten) {
  Keep(Ids(1));
  std::atomic<bool> reading{false}, go{false};
  const auto hold = [&] {
    reading = true;
    Eventually([&] { return go.load(); });
  };
  std::thread reader(
      [&] { EXPECT_TRUE(cache_.Read("s", Ids(1), [&](absl::Span<const uint8_t>) { hold(); })); });
  ASSERT_TRUE(Eventually([&] { return reading.load(); }));
  auto reclaimed = std::async(std::launch::async, [&] { return cache_.Reclaim(kBlockBytes); });
  EXPECT_EQ(reclaimed.wait_for(std::chrono::milliseconds(5)), std::future_status::timeout);
  go = true;
  EXPECT_EQ(reclaimed.get().size(), 1u);
  reader.join();
  reading = go = false;
  std::thread writer([&] {
    cache_.Add("s", Ids(1), kBlockBytes, cache_.era(), [&](uint8_t*) {
      hold();
      return true;
    });
  });
  ASSERT_TRUE(Eventually([&] { return reading.load(); }));
  EXPECT_EQ(cache_.expendable_bytes(), kBlockBytes);
  reclaimed = std::async(std::launch::async, [&] { return cache_.Reclaim(kBlockBytes); });
  go = true;
  EXPECT_EQ(reclaimed.get().size(), 1u);
  writer.join();
  EXPECT_EQ(charged(), 0);
}

TEST_F(PrefixCacheTest, ThreadsThatKeepTakeUpAndReclaimSeeWholeBlocksOnly) {
  budget_.SetExpendable(cache_);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 200; ++i) {
        const std::vector<TokenId> ids = Ids(3, 100 * ((i + t) % 3));
        Keep(ids);
        Known(ids);
        if (i % 7 == t) {
          EXPECT_THAT(budget_.Reserve(Purpose::kScratch, 3 * kBlockBytes), testing::IsOk());
        }
        if (i % 50 == 49) cache_.Clear();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(charged(), cache_.Stats().held_bytes);
}

}  // namespace
}  // namespace coterie
