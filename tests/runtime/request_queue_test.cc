#include "runtime/request_queue.h"

#include <map>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "tests/status_matchers.h"

namespace coterie {
namespace {

using ::coterie::testing::IsOk;
using ::coterie::testing::StatusIs;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// A queue on a clock that stands still, over bases whose warmth is said.
class RequestQueueTest : public ::testing::Test {
 protected:
  RequestQueue::Id Add(const std::string& base, Priority priority = Priority::kInteractive) {
    const auto id = queue_.Add(base, priority, now_);
    EXPECT_THAT(id, IsOk());
    names_[*id] = base;
    return *id;
  }
  // The bases of those who start now.
  std::vector<std::string> Start() {
    std::vector<std::string> started;
    for (const RequestQueue::Id id : queue_.Start(now_, [&](const BaseId& base) {
           const auto it = warmth_.find(base);
           return it == warmth_.end() ? Warmth::kSwitch : it->second;
         })) {
      started.push_back(names_.at(id));
    }
    return started;
  }
  void Restart(RequestQueueOptions options) {
    queue_.~RequestQueue();
    new (&queue_) RequestQueue(options);
  }

  absl::Time now_ = absl::FromUnixSeconds(1'800'000'000);
  std::map<std::string, Warmth> warmth_;
  std::map<RequestQueue::Id, std::string> names_;
  RequestQueue queue_{{.max_waiting = 8, .max_running = 1}};
};

TEST_F(RequestQueueTest, RequestsOnLoadedBasesRunInOrderOfArrival) {
  warmth_ = {{"a", Warmth::kReady}, {"b", Warmth::kReady}};
  Restart({.max_running = 2});
  const auto first = Add("a");
  Add("b");
  Add("a");
  EXPECT_THAT(Start(), ElementsAre("a", "b"));
  EXPECT_THAT(Start(), IsEmpty()) << "two at once";
  queue_.End(first, now_);
  EXPECT_THAT(Start(), ElementsAre("a"));
}

// llama-swap#612: A B A A, with one base in memory, becomes A A A B.
TEST_F(RequestQueueTest, RequestsOnTheLoadedBaseGoBeforeASwitch) {
  warmth_ = {{"a", Warmth::kReady}};
  auto running = Add("a");
  EXPECT_THAT(Start(), ElementsAre("a"));
  Add("b");
  const auto second = Add("a");
  const auto third = Add("a");
  std::vector<std::string> order;
  for (const auto id : {running, second, third}) {
    queue_.End(id, now_);
    for (const std::string& base : Start()) order.push_back(base);
  }
  EXPECT_THAT(order, ElementsAre("a", "a", "b"));
  EXPECT_EQ(queue_.Stats(now_).n_batched, 2);
}

TEST_F(RequestQueueTest, ASwitchIsPassedForABoundedTimeOnly) {
  warmth_ = {{"a", Warmth::kReady}};
  Restart({.max_running = 1, .max_batch_wait = absl::Seconds(2)});
  auto running = Add("a");
  Start();
  Add("b");
  for (int i = 0; i < 3; ++i) {  // The client of a never stops asking.
    const auto next = Add("a");
    now_ += absl::Milliseconds(500);
    queue_.End(running, now_);
    EXPECT_THAT(Start(), ElementsAre("a"));
    running = next;
  }
  Add("a");
  now_ += absl::Milliseconds(500);
  queue_.End(running, now_);
  EXPECT_THAT(Start(), ElementsAre("b")) << "two seconds are over";
}

TEST_F(RequestQueueTest, WhatFitsBesideTheOthersIsNoSwitchAndKeepsItsPlace) {
  warmth_ = {{"a", Warmth::kReady}, {"b", Warmth::kFits}};
  Add("b");
  Add("a");
  EXPECT_THAT(Start(), ElementsAre("b"));
}

TEST_F(RequestQueueTest, OneRequestAtATimeMakesOthersLeave) {
  Restart({.max_running = 4});
  warmth_ = {{"a", Warmth::kReady}};
  const auto b = Add("b");
  Add("c");
  Add("b");
  EXPECT_THAT(Start(), ElementsAre("b")) << "c would make somebody leave too";
  Add("a");
  EXPECT_THAT(Start(), ElementsAre("a")) << "and is passed meanwhile";
  queue_.NoteGranted(b);
  warmth_["b"] = Warmth::kReady;
  EXPECT_THAT(Start(), ElementsAre("b", "c")) << "b first, as its base is there";
}

TEST_F(RequestQueueTest, InteractiveRequestsComeBeforeEarlierBackgroundOnes) {
  warmth_ = {{"a", Warmth::kReady}, {"b", Warmth::kReady}};
  const auto running = Add("a");
  Start();
  Add("b", Priority::kBackground);
  const auto chat = Add("a");
  queue_.End(running, now_);
  EXPECT_THAT(Start(), ElementsAre("a"));
  queue_.End(chat, now_);
  EXPECT_THAT(Start(), ElementsAre("b"));
}

TEST_F(RequestQueueTest, BackgroundRequestsLeaveAPlaceFreeAndMakeNobodyLeaveInteractiveWork) {
  Restart({.max_running = 3});
  warmth_ = {{"a", Warmth::kReady}};
  for (int i = 0; i < 3; ++i) Add("a", Priority::kBackground);
  EXPECT_THAT(Start(), ElementsAre("a", "a")) << "the third place is for a chat";
  const auto chat = Add("a");
  EXPECT_THAT(Start(), ElementsAre("a"));
  Restart({.max_running = 3});
  const auto talk = Add("a");
  Start();
  Add("b", Priority::kBackground);
  EXPECT_THAT(Start(), IsEmpty()) << "b would push something out";
  queue_.End(talk, now_);
  EXPECT_THAT(Start(), ElementsAre("b"));
  (void)chat;
}

TEST_F(RequestQueueTest, ABackgroundRequestDoesNotPassAnInteractiveSwitch) {
  warmth_ = {{"a", Warmth::kReady}};
  Add("a", Priority::kBackground);
  Add("b");
  EXPECT_THAT(Start(), ElementsAre("b"));
}

TEST_F(RequestQueueTest, TheQueueIsBoundedAndSaysSoInNumbers) {
  Restart({.max_waiting = 2, .max_running = 1});
  warmth_ = {{"a", Warmth::kReady}};
  const auto first = Add("a");
  Start();
  now_ += absl::Seconds(4);
  queue_.End(first, now_);
  Add("a");
  Start();
  Add("a");
  now_ += absl::Seconds(1);
  Add("a");
  EXPECT_THAT(
      queue_.Add("a", Priority::kInteractive, now_),
      StatusIs(absl::StatusCode::kUnavailable,
               AllOf(HasSubstr("n_waiting=2"), HasSubstr("max_waiting=2"), HasSubstr("n_running=1"),
                     HasSubstr("oldest_wait=1s"), HasSubstr("retry_in=8s"))));
  EXPECT_EQ(queue_.Stats(now_).n_rejected, 1);
}

TEST_F(RequestQueueTest, ACancelledRequestLeavesItsPlaceAndSlot) {
  warmth_ = {{"a", Warmth::kReady}};
  const auto running = Add("a");
  Start();
  const auto waiting = Add("a");
  queue_.End(waiting, now_);
  queue_.End(running, now_);
  EXPECT_THAT(Start(), IsEmpty());
  EXPECT_TRUE(queue_.idle());
}

TEST_F(RequestQueueTest, IdlenessCountsFromTheLastEnd) {
  warmth_ = {{"a", Warmth::kReady}};
  EXPECT_EQ(queue_.IdleFor(now_), absl::ZeroDuration()) << "nothing has ended yet";
  const auto id = Add("a");
  EXPECT_EQ(queue_.IdleFor(now_), absl::ZeroDuration());
  Start();
  now_ += absl::Seconds(3);
  EXPECT_EQ(queue_.IdleFor(now_), absl::ZeroDuration());
  queue_.End(id, now_);
  now_ += absl::Seconds(2);
  EXPECT_EQ(queue_.IdleFor(now_), absl::Seconds(2));
}

TEST(PriorityTest, IsReadByName) {
  COTERIE_ASSERT_OK_AND_ASSIGN(const Priority priority, ParsePriority("background"));
  EXPECT_EQ(priority, Priority::kBackground);
  EXPECT_THAT(ParsePriority("urgent"),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("\"urgent\"")));
}

}  // namespace
}  // namespace coterie
