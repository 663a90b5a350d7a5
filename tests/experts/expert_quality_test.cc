#include "experts/expert_quality.h"

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "tests/status_matchers.h"

namespace coterie {
namespace {

namespace fs = std::filesystem;
using ::coterie::testing::IsOk;
using ::coterie::testing::StatusIs;
using ::testing::AllOf;
using ::testing::HasSubstr;

TEST(DefaultQualityTest, TheLargerModelIsBetterAndSlowerEverywhere) {
  const ExpertQuality small = DefaultQuality("qwen2.5-coder-0.5b", 491400064);
  const ExpertQuality large = DefaultQuality("qwen2.5-coder-1.5b", 1117320736);
  for (const absl::string_view domain : KnownDomains()) {
    const std::string name(domain);
    EXPECT_GT(large.quality.at(name), small.quality.at(name)) << name;
    EXPECT_GT(large.answer_seconds.at(name), small.answer_seconds.at(name)) << name;
  }
}

TEST(DefaultQualityTest, UnknownModelsAreJudgedBySizeAndName) {
  for (int64_t bytes : {int64_t{0}, int64_t{1000}, int64_t{300'000'000}, int64_t{1} << 50}) {
    const auto plain = DefaultQuality("mystery", bytes).quality;
    const auto coder = DefaultQuality("Mystery-Code", bytes).quality;
    EXPECT_GE(coder.at("code"), plain.at("code"));
    EXPECT_LE(coder.at("writing"), plain.at("writing"));
    ASSERT_EQ(plain.size(), KnownDomains().size());
    for (const auto& [domain, quality] : plain) {
      EXPECT_GT(quality, 0) << domain;
      EXPECT_LT(quality, 1) << domain;
    }
  }
  EXPECT_GT(DefaultQuality("mystery", 2'000'000'000).quality.at("general"),
            DefaultQuality("mystery", 200'000'000).quality.at("general"));
}

class MeasuredQualityTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (fs::temp_directory_path() / "coterie_measured_XXXXXX").string();
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    home_ = pattern;
  }
  void TearDown() override { fs::remove_all(home_); }

  absl::StatusOr<MeasuredQuality> ReadText(const std::string& text) {
    std::ofstream(fs::path(home_) / "measurements.json", std::ios::binary) << text;
    return MeasuredQuality::Read(home_);
  }

  std::string home_;
};

TEST_F(MeasuredQualityTest, WithoutAFileNothingIsMeasured) {
  const absl::StatusOr<MeasuredQuality> measured = MeasuredQuality::Read(home_);
  ASSERT_THAT(measured, IsOk());
  const ExpertQuality prior{{{"code", 0.5}}, {{"code", 1.0}}};
  EXPECT_EQ(measured->Over(prior, "sha256:1", "").quality, prior.quality);
}

TEST_F(MeasuredQualityTest, WhatWasMeasuredReplacesThePriorOfThatBaseAndAdapterOnly) {
  const auto measured = ReadText(R"({"version": 1, "machine": "two cores", "experts": [
      {"base": "sha256:1", "adapter": "home", "domains": {
          "code": {"quality": 0.75, "answer_seconds": 3.5, "n": 68}}}]})");
  ASSERT_THAT(measured, IsOk());
  const ExpertQuality prior{{{"code", 0.5}, {"math", 0.2}}, {{"code", 1.0}, {"math", 2.0}}};
  const ExpertQuality adapted = measured->Over(prior, "sha256:1", "home");
  EXPECT_EQ(adapted.quality.at("code"), 0.75);
  EXPECT_EQ(adapted.answer_seconds.at("code"), 3.5);
  EXPECT_EQ(adapted.quality.at("math"), 0.2);
  EXPECT_EQ(measured->Over(prior, "sha256:1", "").quality.at("code"), 0.5);
  EXPECT_EQ(measured->Over(prior, "sha256:2", "home").quality.at("code"), 0.5);
}

TEST_F(MeasuredQualityTest, AFileThatLiesIsRefusedWithWhatIsWrongInIt) {
  const auto entry = [](const std::string& domains) {
    return absl::StrCat(R"({"version": 1, "experts": [{"base": "b", "domains": )", domains, "}]}");
  };
  const std::pair<std::string, std::string> cases[] = {
      {"", "no JSON object"},
      {"[1]", "no JSON object"},
      {"{\"version\": 2}", "\"version\" is not 1"},
      {"{\"version\": 1}", "\"experts\" is not a list"},
      {"{\"version\": 1, \"experts\": [7]}", "not an object"},
      {"{\"version\": 1, \"experts\": [{}]}", "no \"base\""},
      {"{\"version\": 1, \"experts\": [{\"base\": \"b\", \"adapter\": 1}]}", "\"adapter\""},
      {"{\"version\": 1, \"experts\": [{\"base\": \"b\"}]}", "\"domains\" is not an object"},
      {entry("{\"code\": 1}"), "'code' is not an object"},
      {entry(R"({"code": {"quality": 1.5, "answer_seconds": 1}})"), "\"quality\" in [0, 1]"},
      {entry(R"({"code": {"quality": "x", "answer_seconds": 1}})"), "\"quality\" in [0, 1]"},
      {entry(R"({"code": {"quality": 0.5, "answer_seconds": -1}})"), "\"answer_seconds\""},
      {entry(R"({"code": {"quality": 0.5}})"), "\"answer_seconds\""},
      {std::string((1 << 20) + 1, ' '), "too long"},
      {std::string(100000, '['), "nested too deep"},
  };
  for (const auto& [text, what] : cases) {
    EXPECT_THAT(ReadText(text).status(),
                StatusIs(absl::StatusCode::kDataLoss,
                         AllOf(HasSubstr(what), HasSubstr("measurements.json"))))
        << text.substr(0, 80);
  }
}

}  // namespace
}  // namespace coterie
