#include "runtime/request_log.h"

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

#include "tests/status_matchers.h"

namespace coterie {
namespace {

TEST(RequestLogTest, AppendsALineOfJsonPerRequestAndNothingOfItsText) {
  std::string folder = (std::filesystem::temp_directory_path() / "coterie_log_XXXXXX").string();
  ASSERT_NE(mkdtemp(folder.data()), nullptr);
  const std::string path = folder + "/requests.jsonl";
  for (int i = 0; i < 2; ++i) {  // A second process goes on where the first ended.
    COTERIE_ASSERT_OK_AND_ASSIGN(const auto log, RequestLog::Open(path));
    log->Append({.arrival = absl::FromUnixMillis(1'800'000'000'250 + i),
                 .base = "a \"quoted\" name",
                 .base_bytes = 98'000'000,
                 .kv_bytes = 5'000'000,
                 .load_time = absl::Milliseconds(410),
                 .hold_time = absl::Seconds(2)});
  }
  std::ifstream stream(path);
  int n_lines = 0;
  for (std::string line; std::getline(stream, line); ++n_lines) {
    const auto fields = nlohmann::json::parse(line);
    EXPECT_EQ(fields.size(), 6u);
    EXPECT_NEAR(fields["t"].get<double>(), 1'800'000'000.25 + 0.001 * n_lines, 1e-4);
    EXPECT_EQ(fields["base"], "a \"quoted\" name");
    EXPECT_EQ(fields["base_bytes"], 98'000'000);
    EXPECT_DOUBLE_EQ(fields["load_s"].get<double>(), 0.41);
  }
  EXPECT_EQ(n_lines, 2);
  std::filesystem::remove_all(folder);
}

TEST(RequestLogTest, APlaceThatCannotBeWrittenIsSaid) {
  const auto log = RequestLog::Open("/nowhere/at/all/requests.jsonl");
  EXPECT_EQ(log.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(log.status().message().find("/nowhere/at/all"), absl::string_view::npos);
}

}  // namespace
}  // namespace coterie
