#include "lora/interaction_log.h"

#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "gmock/gmock.h"

#include "lora/record_cipher.h"
#include "lora/sqlite_database.h"
#include "tests/lora/interaction_fixture.h"

#include <sys/stat.h>

namespace coterie {
namespace {

using ::coterie::testing::InteractionLogTest;
using ::coterie::testing::IsOk;
using ::coterie::testing::MakeInteraction;
using ::coterie::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// Of the database, its write-ahead log and its index together.
std::string AllBytes(const std::filesystem::path& folder) {
  std::stringstream bytes;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.path().extension() != ".key") bytes << std::ifstream(entry.path()).rdbuf();
  }
  return bytes.str();
}

TEST_F(InteractionLogTest, WhatWasAppendedIsReadBackWholeAfterReopening) {
  Interaction written = MakeInteraction("a-1", "Wie geht's? \"ü\"", "Gut.\n\tDanke.");
  written.messages.push_back({"assistant", "", R"({"tool_calls":[]})"});
  ASSERT_THAT(Open()->Append(written), IsOk());
  const auto log = Open();
  COTERIE_ASSERT_OK_AND_ASSIGN(const Interaction read, log->Get("a-1"));
  EXPECT_EQ(read.time, written.time);
  EXPECT_EQ(read.conversation, written.conversation);
  ASSERT_EQ(read.messages.size(), 3u);
  EXPECT_EQ(read.messages[1].content, written.messages[1].content);
  EXPECT_EQ(read.messages[2].fields_json, written.messages[2].fields_json);
  EXPECT_EQ(read.reply, written.reply);
  EXPECT_EQ(read.expert, "small");
  EXPECT_EQ(read.base, "sha256:base");
  EXPECT_EQ(read.adapter, "small@3");
  EXPECT_EQ(read.route.domain, "code");
  EXPECT_EQ(read.route.confidence, 0.75);
  EXPECT_EQ(read.finish_reason, "stop");
  EXPECT_EQ(read.feedback.verdict, Verdict::kNone);
  EXPECT_EQ(read.change, 0);
}

TEST_F(InteractionLogTest, TheFileIsForItsUserAlone) {
  const auto log = Open();
  Append(*log, "a");
  for (const auto& entry : std::filesystem::directory_iterator(folder_)) {
    struct stat status;
    ASSERT_EQ(stat(entry.path().c_str(), &status), 0);
    EXPECT_EQ(status.st_mode & 0777, 0600u) << entry.path();
  }
}

TEST_F(InteractionLogTest, FeedbackIsReplacedByLaterFeedbackAndCanBeTakenBack) {
  const auto log = Open();
  Append(*log, "a");
  ASSERT_THAT(log->SetFeedback("a", {Verdict::kEdited, "better", "code"}), IsOk());
  EXPECT_EQ(log->Get("a")->feedback.text, "better");
  EXPECT_EQ(log->Get("a")->feedback.domain, "code");
  ASSERT_THAT(log->SetFeedback("a", {Verdict::kRejected, "ignored", ""}), IsOk());
  const Interaction rejected = *log->Get("a");
  EXPECT_EQ(rejected.feedback.verdict, Verdict::kRejected);
  EXPECT_EQ(rejected.feedback.text, "");
  EXPECT_EQ(rejected.feedback.domain, "");
  EXPECT_GT(rejected.feedback_time, rejected.time);
  ASSERT_THAT(log->SetFeedback("a", {}), IsOk());
  EXPECT_THAT(Ids(*log, {.with_feedback = true}), IsEmpty());
}

TEST_F(InteractionLogTest, TheSameFeedbackTwiceChangesNothing) {
  const auto log = Open();
  Append(*log, "a");
  ASSERT_THAT(log->SetFeedback("a", {Verdict::kAccepted, "", ""}), IsOk());
  const Interaction once = *log->Get("a");
  const int64_t change = *log->LastChange();
  ASSERT_THAT(log->SetFeedback("a", {Verdict::kAccepted, "", ""}), IsOk());
  EXPECT_EQ(log->Get("a")->feedback_time, once.feedback_time);
  EXPECT_EQ(*log->LastChange(), change);
}

TEST_F(InteractionLogTest, AnEditThatChangesNothingIsAnAcceptance) {
  const auto log = Open();
  Append(*log, "a", "ask", "as it was");
  COTERIE_ASSERT_OK_AND_ASSIGN(const Feedback kept,
                               log->SetFeedback("a", {Verdict::kEdited, "as it was", ""}));
  EXPECT_EQ(kept.verdict, Verdict::kAccepted);
  EXPECT_EQ(log->Get("a")->feedback.verdict, Verdict::kAccepted);
}

TEST_F(InteractionLogTest, BadTextAndUnknownIdsAreRefusedInWords) {
  const auto log = Open();
  Append(*log, "a");
  using absl::StatusCode;
  EXPECT_THAT(log->SetFeedback("b", {Verdict::kAccepted, "", ""}),
              StatusIs(StatusCode::kNotFound, HasSubstr("coterie interactions list")));
  EXPECT_THAT(log->Get("b"), StatusIs(StatusCode::kNotFound, HasSubstr("'b'")));
  EXPECT_THAT(log->Forget("b"), StatusIs(StatusCode::kNotFound, HasSubstr("'b'")));
  EXPECT_THAT(log->SetFeedback("a", {Verdict::kEdited, "", ""}),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("needs the text")));
  EXPECT_THAT(log->SetFeedback("a", {Verdict::kEdited, "\xff", ""}),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("UTF-8")));
  const std::string book(InteractionLog::kMaxTextBytes + 1, 'x');
  EXPECT_THAT(log->SetFeedback("a", {Verdict::kEdited, book, ""}),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("too long")));
  EXPECT_THAT(log->Append(MakeInteraction("c", book, "")),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("too long")));
  EXPECT_THAT(log->Append(MakeInteraction("a", "again", "")),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("this id already")));
  EXPECT_THAT(Ids(*log), ElementsAre("a"));
  EXPECT_EQ(log->Get("a")->feedback.verdict, Verdict::kNone);
}

TEST_F(InteractionLogTest, ListsByExpertFeedbackAndChange) {
  const auto log = Open();
  for (const char* id : {"a", "b", "c", "d"}) Append(*log, id);
  Interaction other = MakeInteraction("e", "ask", "reply");
  other.expert = "coder";
  ASSERT_THAT(log->Append(other), IsOk());
  ASSERT_THAT(log->SetFeedback("c", {Verdict::kAccepted, "", ""}), IsOk());
  const int64_t before = *log->LastChange();
  ASSERT_THAT(log->SetFeedback("a", {Verdict::kNone, "", "code"}), IsOk());
  EXPECT_THAT(Ids(*log), ElementsAre("a", "b", "c", "d", "e"));
  EXPECT_THAT(Ids(*log, {.newest_first = true, .limit = 2}), ElementsAre("e", "d"));
  EXPECT_THAT(Ids(*log, {.expert = "coder"}), ElementsAre("e"));
  EXPECT_THAT(Ids(*log, {.with_feedback = true}), ElementsAre("a", "c"));
  EXPECT_THAT(Ids(*log, {.with_domain = true}), ElementsAre("a"));
  EXPECT_THAT(Ids(*log, {.changed_after = before}), ElementsAre("a"));
}

TEST_F(InteractionLogTest, CountsFeedbackThatNoTrainingHasSeen) {
  const auto log = Open();
  for (const char* id : {"a", "b", "c"}) Append(*log, id);
  ASSERT_THAT(log->SetFeedback("a", {Verdict::kAccepted, "", ""}), IsOk());
  ASSERT_THAT(log->SetFeedback("b", {Verdict::kEdited, "x", ""}), IsOk());
  EXPECT_EQ(log->NewFeedback()->at("small").total(), 2);
  ASSERT_THAT(log->MarkTrained("small", *log->LastChange()), IsOk());
  EXPECT_EQ(log->NewFeedback()->count("small"), 0u);
  ASSERT_THAT(log->SetFeedback("a", {Verdict::kRejected, "", ""}), IsOk());
  EXPECT_EQ(log->NewFeedback()->at("small").n_rejected, 1);
  EXPECT_EQ(log->NewFeedback()->at("small").total(), 1);
}

TEST_F(InteractionLogTest, TheCapTakesTheOldestWithoutFeedbackFirst) {
  options_.max_bytes = 400'000;
  const auto log = Open();
  const std::string text(4000, 'x');
  Append(*log, "first", text);
  ASSERT_THAT(log->SetFeedback("first", {Verdict::kAccepted, "", ""}), IsOk());
  for (int i = 0; i < 200; ++i) Append(*log, absl::StrCat("n", i), text);
  EXPECT_LE(*log->used_bytes(), options_.max_bytes);
  EXPECT_GE(*log->used_bytes(), options_.max_bytes / 2);
  const std::vector<std::string> ids = Ids(*log);
  EXPECT_EQ(ids.front(), "first");
  EXPECT_EQ(ids.back(), "n199");
  EXPECT_EQ(ids[1], absl::StrCat("n", 201 - ids.size())) << "the rest is the newest";
}

TEST_F(InteractionLogTest, WhereAllHaveFeedbackTheOldestGoes) {
  options_.max_bytes = 300'000;
  const auto log = Open();
  for (int i = 0; i < 100; ++i) {
    const std::string id = absl::StrCat("n", i);
    Append(*log, id, std::string(4000, 'x'));
    ASSERT_THAT(log->SetFeedback(id, {Verdict::kAccepted, "", ""}), IsOk());
  }
  EXPECT_LE(*log->used_bytes(), options_.max_bytes);
  EXPECT_EQ(Ids(*log).back(), "n99");
  EXPECT_NE(Ids(*log).front(), "n0");
}

TEST_F(InteractionLogTest, WhatAnAdapterWasTrainedOnGoesLast) {
  options_.max_bytes = 300'000;
  const auto log = Open();
  const std::string text(4000, 'x');
  for (const char* id : {"learnt", "learnt, taken back"}) {
    Append(*log, id, text);
    ASSERT_THAT(log->SetFeedback(id, {Verdict::kAccepted, "", ""}), IsOk());
  }
  ASSERT_THAT(log->MarkInAdapter({{"learnt", "learnt, taken back", "unknown"}}), IsOk());
  ASSERT_THAT(log->SetFeedback("learnt, taken back", {}), IsOk());
  for (int i = 0; i < 100; ++i) {
    const std::string id = absl::StrCat("n", i);
    Append(*log, id, text);
    ASSERT_THAT(log->SetFeedback(id, {Verdict::kAccepted, "", ""}), IsOk());
  }
  const std::vector<std::string> ids = Ids(*log);
  EXPECT_EQ(ids[0], "learnt");
  EXPECT_EQ(ids[1], "learnt, taken back");
  EXPECT_EQ(ids.back(), "n99");
  // With nothing else left they go too: the file stays within its bounds.
  ASSERT_THAT(log->MarkInAdapter(ids), IsOk());
  for (int i = 0; i < 3; ++i) Append(*log, absl::StrCat("late ", i), std::string(70'000, 'x'));
  EXPECT_LE(*log->used_bytes(), options_.max_bytes);
  EXPECT_NE(Ids(*log).front(), "learnt");
}

TEST_F(InteractionLogTest, ALogOfTheFirstVersionIsTakenOver) {
  Append(*Open(), "a", "asked long ago");
  {
    COTERIE_ASSERT_OK_AND_ASSIGN(const auto database,
                                 SqliteDatabase::Open(options_.path, "the log", absl::Seconds(5)));
    ASSERT_THAT(database->Run("ALTER TABLE interaction DROP COLUMN in_adapter; "
                              "PRAGMA user_version = 1"),
                IsOk());
  }
  const auto log = Open();
  EXPECT_THAT(Ids(*log), ElementsAre("a"));
  EXPECT_THAT(log->MarkInAdapter({{"a"}}), IsOk());
}

TEST_F(InteractionLogTest, WhatIsForgottenLeavesNoBytesBehind) {
  const auto log = Open();
  Append(*log, "a", "my secret wish");
  Append(*log, "b", "another");
  ASSERT_THAT(log->SetFeedback("a", {Verdict::kEdited, "my secret edit", ""}), IsOk());
  ASSERT_THAT(AllBytes(folder_), HasSubstr("my secret"));
  const int64_t change = *log->LastChange();
  ASSERT_THAT(log->Forget("a"), IsOk());
  EXPECT_THAT(AllBytes(folder_), ::testing::Not(HasSubstr("my secret")));
  EXPECT_THAT(Ids(*log), ElementsAre("b"));
  EXPECT_GT(*log->LastChange(), change) << "what was derived from it is out of date";
}

TEST_F(InteractionLogTest, WithAKeyTheTextIsNowhereInTheFile) {
  options_.key = NewSealKey();
  {
    const auto log = Open();
    Append(*log, "a", "my secret wish", "my secret reply");
    ASSERT_THAT(log->SetFeedback("a", {Verdict::kEdited, "my secret edit", ""}), IsOk());
    EXPECT_THAT(AllBytes(folder_), ::testing::Not(HasSubstr("secret")));
    EXPECT_EQ(log->Get("a")->feedback.text, "my secret edit");
  }
  EXPECT_THAT(AllBytes(folder_), ::testing::Not(HasSubstr("secret")));
  EXPECT_EQ(Open()->Get("a")->messages[1].content, "my secret wish");
}

TEST_F(InteractionLogTest, APlainLogIsEncryptedWhenAKeyIsGiven) {
  {
    const auto log = Open();
    Append(*log, "a", "my secret wish");
    Append(*log, "b", "my other secret");
    ASSERT_THAT(log->SetFeedback("a", {Verdict::kEdited, "my secret edit", ""}), IsOk());
  }
  ASSERT_THAT(AllBytes(folder_), HasSubstr("secret"));
  options_.key = NewSealKey();
  const auto log = Open();
  EXPECT_THAT(AllBytes(folder_), ::testing::Not(HasSubstr("secret")));
  EXPECT_EQ(log->Get("a")->feedback.text, "my secret edit");
  EXPECT_EQ(log->Get("b")->messages[1].content, "my other secret");
}

TEST_F(InteractionLogTest, AMissingOrAnotherKeyIsSaid) {
  options_.key = NewSealKey();
  ASSERT_NE(Open(), nullptr);
  options_.key = NewSealKey();
  EXPECT_THAT(InteractionLog::Open(options_),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("another key")));
  options_.key.clear();
  EXPECT_THAT(InteractionLog::Open(options_),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("key_file")));
}

TEST_F(InteractionLogTest, AKeyFileHoldsDigitsOrBytesAndNothingElse) {
  const std::string path = folder_ / "log.key";
  EXPECT_THAT(ReadKeyFile(path), StatusIs(absl::StatusCode::kNotFound, HasSubstr("/dev/urandom")));
  std::ofstream(path) << std::string(31, 'f') << std::string(33, '0') << "\n";
  COTERIE_ASSERT_OK_AND_ASSIGN(const std::string key, ReadKeyFile(path));
  EXPECT_EQ(key, std::string(15, '\xff') + "\xf0" + std::string(16, '\0'));
  std::ofstream(path, std::ios::trunc) << key;
  EXPECT_EQ(*ReadKeyFile(path), key);
  for (const std::string& bad : {std::string(64, 'g'), std::string(63, 'a'), std::string()}) {
    std::ofstream(path, std::ios::trunc) << bad;
    EXPECT_THAT(ReadKeyFile(path),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("64 hexadecimal")));
  }
}

TEST_F(InteractionLogTest, SealedBytesOpenOnlyUnchangedInTheirPlace) {
  const std::string key = NewSealKey();
  std::string sealed = Seal(key, "text", "here");
  EXPECT_EQ(*Unseal(key, sealed, "here"), "text");
  using absl::StatusCode;
  EXPECT_THAT(Unseal(key, sealed, "there"), StatusIs(StatusCode::kDataLoss, HasSubstr("changed")));
  EXPECT_THAT(Unseal(NewSealKey(), sealed, "here"), StatusIs(StatusCode::kDataLoss, HasSubstr("")));
  EXPECT_THAT(Unseal(key, "short", "here"), StatusIs(StatusCode::kDataLoss, HasSubstr("cut")));
  sealed.back() ^= 1;
  EXPECT_THAT(Unseal(key, sealed, "here"), StatusIs(StatusCode::kDataLoss, HasSubstr("changed")));
}

}  // namespace
}  // namespace coterie
