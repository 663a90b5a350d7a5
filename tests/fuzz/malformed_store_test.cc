// A store full of models that lie, and one that does not.

#include <memory>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "runtime/assistant.h"
#include "tests/fuzz/gguf_draft.h"
#include "tests/fuzz/malformed_file.h"
#include "tests/fuzz/scratch_folder.h"
#include "tests/status_matchers.h"

namespace coterie {
namespace {

using ::coterie::testing::IsOk;
using ::coterie::testing::MalformedFile;
using ::coterie::testing::ScratchFolder;
using ::testing::HasSubstr;

class MalformedStoreTest : public ::testing::Test {
 protected:
  // Puts a model and its record into the store; its path.
  std::string AddModel(const std::string& name, const std::string& bytes) {
    folder_.Write(absl::StrCat("models/", name, ".json"),
                  absl::StrCat(R"({"name":")", name, R"(","path":")", name, R"(.gguf"})"));
    return folder_.Write(absl::StrCat(name, ".gguf"), bytes);
  }

  absl::StatusOr<std::unique_ptr<Assistant>> Open() {
    Configuration configuration;
    configuration.memory_budget_bytes = 200'000'000;
    configuration.threads = 1;
    configuration.home = folder_.path();
    configuration.router_path = folder_.Write("router", testing::TinyLexicalRouter().Bytes());
    return Assistant::Open(std::move(configuration));
  }

  static absl::StatusOr<std::string> Answer(Assistant& assistant, const std::string& expert) {
    Request request;
    request.messages.push_back({"user", "hello you", ""});
    request.sampling.temperature = 0.0f;
    request.max_tokens = 8;
    request.expert = expert;
    const auto reply = assistant.Generate(request, [](absl::string_view) { return true; }, {});
    if (!reply.ok()) return reply.status();
    return reply->generation.text;
  }

  const ScratchFolder folder_;
};

TEST_F(MalformedStoreTest, TheOneSoundExpertAnswersAsIfItWereAlone) {
  AddModel("good", testing::TinyModel().Bytes());
  std::string alone;
  {
    const auto assistant = Open();
    COTERIE_ASSERT_OK(assistant);
    COTERIE_ASSERT_OK_AND_ASSIGN(alone, Answer(**assistant, "good"));
    EXPECT_FALSE(alone.empty());
  }
  std::vector<std::string> names, paths;
  for (const MalformedFile& bad : testing::MalformedModels()) {
    names.push_back(absl::StrCat("bad", names.size()));
    paths.push_back(AddModel(names.back(), bad.bytes));
  }
  const auto assistant = Open();
  COTERIE_ASSERT_OK(assistant);
  EXPECT_EQ(*Answer(**assistant, "good"), alone);
  const std::string problems = absl::StrJoin((*assistant)->problems(), "\n");
  for (size_t i = 0; i < names.size(); ++i) {
    const absl::StatusOr<std::string> answer = Answer(**assistant, names[i]);
    EXPECT_THAT(answer, ::testing::Not(IsOk())) << names[i];
    // Named when the store was opened, or else when it was asked.
    if (absl::StrContains(problems, paths[i])) continue;
    EXPECT_THAT(std::string(answer.status().message()), HasSubstr(paths[i]));
  }
  EXPECT_EQ(*Answer(**assistant, "good"), alone);
  // Nothing of them is left in the budget.
  const BudgetSnapshot budget = (*assistant)->Stats().budget;
  EXPECT_LT(budget.used_bytes, 10'000'000);
}

}  // namespace
}  // namespace coterie
