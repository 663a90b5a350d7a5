// Adapters in memory: charged once, shared, and as current as the store.

#include "runtime/adapter_shelf.h"

#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "tests/experts/tiny_adapter.h"
#include "tests/experts/tiny_model.h"
#include "tests/fuzz/scratch_folder.h"
#include "tests/status_matchers.h"

namespace coterie {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::StatusIs;

constexpr char kBase[] = "sha256:aa";

class NothingToReclaim : public Reclaimer {
 public:
  std::vector<Reservation> Reclaim(int64_t) override { return {}; }
};

class AdapterShelfTest : public ::testing::Test {
 protected:
  Adapter TinyAdapter(uint32_t seed, const std::string& name) const {
    Adapter adapter;
    adapter.name = name;
    adapter.base.id = kBase;
    adapter.deltas = testing::TinyDeltas(spec_, seed);
    return adapter;
  }
  void Publish(uint32_t seed, const std::string& name = "home") {
    COTERIE_ASSERT_OK(store_.Publish(TinyAdapter(seed, name), {}).status());
  }
  int64_t ChargedBytes() const {
    return budget_.Snapshot().bytes_by_purpose[static_cast<size_t>(Purpose::kAdapter)];
  }

  const ArchSpec spec_ = testing::MakeTinyModel("llama").spec;
  const testing::ScratchFolder folder_;
  AdapterStore store_{folder_.path()};
  MemoryBudget budget_{1'000'000};
  NothingToReclaim reclaimer_;
  std::vector<std::string> told_;
  AdapterShelf shelf_{
      folder_.path(), budget_, reclaimer_,
      [this](const std::string&, const std::string& problem) { told_.push_back(problem); }};
};

TEST_F(AdapterShelfTest, IsChargedItsTrueBytesOnceHoweverManyHoldIt) {
  Publish(1);
  COTERIE_ASSERT_OK_AND_ASSIGN(const DeltaSnapshot one, shelf_.Current("home", kBase, spec_));
  COTERIE_ASSERT_OK_AND_ASSIGN(const DeltaSnapshot two, shelf_.Current("home", kBase, spec_));
  EXPECT_EQ(one.get(), two.get());
  EXPECT_EQ(one->version(), "home@1");
  EXPECT_EQ(ChargedBytes(), one->bytes());
  EXPECT_EQ(shelf_.Entries()[0].bytes, one->bytes());
}

TEST_F(AdapterShelfTest, APublishTakesEffectAtOnceAndARunningAnswerKeepsItsVersion) {
  Publish(1);
  COTERIE_ASSERT_OK_AND_ASSIGN(DeltaSnapshot running, shelf_.Current("home", kBase, spec_));
  Publish(2);
  COTERIE_ASSERT_OK_AND_ASSIGN(const DeltaSnapshot next, shelf_.Current("home", kBase, spec_));
  EXPECT_EQ(next->version(), "home@2");
  EXPECT_EQ(running->version(), "home@1");
  EXPECT_EQ(ChargedBytes(), running->bytes() + next->bytes());
  running.reset();
  EXPECT_EQ(ChargedBytes(), next->bytes());
  COTERIE_ASSERT_OK(store_.Rollback("home", 1));
  COTERIE_ASSERT_OK_AND_ASSIGN(const DeltaSnapshot back, shelf_.Current("home", kBase, spec_));
  EXPECT_EQ(back->version(), "home@1");
}

TEST_F(AdapterShelfTest, IdleAdaptersGoWithTheirBase) {
  Publish(1);
  Publish(1, "work");
  COTERIE_ASSERT_OK_AND_ASSIGN(DeltaSnapshot held, shelf_.Current("home", kBase, spec_));
  COTERIE_ASSERT_OK(shelf_.Current("work", kBase, spec_).status());
  shelf_.DropIdle([](const BaseId&) { return true; });
  EXPECT_EQ(shelf_.Entries().size(), 2u);
  shelf_.DropIdle([](const BaseId&) { return false; });
  EXPECT_EQ(shelf_.Entries().size(), 1u);
  held.reset();
  shelf_.DropIdle([](const BaseId&) { return false; });
  EXPECT_THAT(shelf_.Entries(), IsEmpty());
  EXPECT_EQ(ChargedBytes(), 0);
}

TEST_F(AdapterShelfTest, ADamagedVersionServesTheLastGoodOneAndIsToldOnce) {
  Publish(1);
  Publish(2);
  testing::WriteFile(store_.FolderOf("home", 2) + "/adapter_model.safetensors", "x");
  for (int i = 0; i < 3; ++i) {
    COTERIE_ASSERT_OK_AND_ASSIGN(const DeltaSnapshot served, shelf_.Current("home", kBase, spec_));
    EXPECT_EQ(served->version(), "home@1");
    EXPECT_EQ(ChargedBytes(), served->bytes());
  }
  EXPECT_THAT(told_, ElementsAre(HasSubstr("adapter_model.safetensors")));
  Publish(3);
  COTERIE_ASSERT_OK_AND_ASSIGN(const DeltaSnapshot served, shelf_.Current("home", kBase, spec_));
  EXPECT_EQ(served->version(), "home@3");
}

TEST_F(AdapterShelfTest, AnotherBaseIsRefusedWithBothIdsAndNothingIsCharged) {
  Publish(1);
  EXPECT_THAT(shelf_.Current("home", "sha256:bb", spec_),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       AllOf(HasSubstr("sha256:aa"), HasSubstr("sha256:bb"))));
  EXPECT_THAT(shelf_.Current("away", kBase, spec_),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("'away'")));
  EXPECT_EQ(ChargedBytes(), 0);
}

TEST_F(AdapterShelfTest, ABudgetWithoutRoomMakesIdleAdaptersGoAndElseSaysSo) {
  Publish(1);
  Publish(1, "work");
  COTERIE_ASSERT_OK_AND_ASSIGN(const int64_t bytes, store_.ServedBytes("home", 1));
  budget_.SetLimit(5 * bytes + bytes / 2);  // Reading takes five times the bytes for a moment.
  COTERIE_ASSERT_OK(shelf_.Current("home", kBase, spec_).status());
  COTERIE_ASSERT_OK_AND_ASSIGN(const DeltaSnapshot held, shelf_.Current("work", kBase, spec_));
  EXPECT_EQ(shelf_.Entries().size(), 1u);
  EXPECT_THAT(shelf_.Current("home", kBase, spec_),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr("")));
  budget_.SetLimit(bytes);
  EXPECT_THAT(shelf_.Current("home", kBase, spec_),
              StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("")));
}

// What an answer waits for whose adapter is in memory: a look at the store and at a map.
TEST_F(AdapterShelfTest, SwitchingTakesNoTime) {
  Publish(1);
  Publish(2, "work");
  for (const char* name : {"home", "work"}) {
    COTERIE_ASSERT_OK(shelf_.Current(name, kBase, spec_).status());
  }
  const absl::Time start = absl::Now();
  for (int i = 0; i < 200; ++i) {
    COTERIE_ASSERT_OK(shelf_.Current(i % 2 == 0 ? "home" : "work", kBase, spec_).status());
  }
  EXPECT_LT(absl::ToDoubleMilliseconds(absl::Now() - start) / 200, 0.5);
}

}  // namespace
}  // namespace coterie
