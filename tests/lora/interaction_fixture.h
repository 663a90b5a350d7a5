#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"

#include "lora/interaction_log.h"
#include "tests/status_matchers.h"

namespace coterie::testing {

inline Interaction MakeInteraction(const std::string& id, const std::string& asked,
                                   const std::string& reply) {
  Interaction interaction;
  interaction.id = id;
  interaction.time = absl::FromUnixMicros(1'700'000'000'123'456);
  interaction.conversation = "talk";
  interaction.messages = {{"system", "Be brief.", ""}, {"user", asked, ""}};
  interaction.reply = reply;
  interaction.expert = "small";
  interaction.base = "sha256:base";
  interaction.adapter = "small@3";
  interaction.route = {"code", 0.75, "code 0.75"};
  interaction.finish_reason = "stop";
  return interaction;
}

// A folder of its own for every test, with one log.
class InteractionLogTest : public ::testing::Test {
 protected:
  InteractionLogTest() {
    const auto* test = ::testing::UnitTest::GetInstance()->current_test_info();
    folder_ = std::filesystem::path(::testing::TempDir()) /
              absl::StrCat("coterie_", test->test_suite_name(), test->name());
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
    options_.path = folder_ / "interactions.db";
  }
  ~InteractionLogTest() override { std::filesystem::remove_all(folder_); }

  std::unique_ptr<InteractionLog> Open() {
    auto log = InteractionLog::Open(options_);
    EXPECT_THAT(log, IsOk());
    return log.ok() ? *std::move(log) : nullptr;
  }

  static void Append(InteractionLog& log, const std::string& id, const std::string& asked = "ask",
                     const std::string& reply = "reply") {
    ASSERT_THAT(log.Append(MakeInteraction(id, asked, reply)), IsOk());
  }

  static std::vector<std::string> Ids(const InteractionLog& log,
                                      const InteractionFilter& filter = {}) {
    std::vector<std::string> ids;
    const auto list = log.List(filter);
    EXPECT_THAT(list, IsOk());
    for (const Interaction& interaction : *list) ids.push_back(interaction.id);
    return ids;
  }

  std::filesystem::path folder_;
  InteractionLogOptions options_;
};

}  // namespace coterie::testing
