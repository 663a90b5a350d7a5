#include <cmath>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <limits>
#include <string>

#include "absl/strings/str_cat.h"

#include "core/formats/gguf_file.h"
#include "core/formats/gguf_writer.h"
#include "router/router.h"
#include "tests/router/small_rows.h"
#include "tests/status_matchers.h"

namespace coterie {
namespace {

using ::coterie::testing::StatusIs;
using ::testing::HasSubstr;

class RouterFileTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = std::filesystem::path(::testing::TempDir()) /
              absl::StrCat("router_file_test_",
                           ::testing::UnitTest::GetInstance()->current_test_info()->name());
    std::filesystem::create_directories(folder_);
    path_ = (folder_ / "router.gguf").string();
    COTERIE_ASSERT_OK_AND_ASSIGN(router_, Router::Fit(testing::SmallRows()));
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::string ReadFile() {
    std::ifstream in(path_, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  void WriteFile(const std::string& bytes) {
    std::ofstream(path_, std::ios::binary | std::ios::trunc) << bytes;
  }

  std::filesystem::path folder_;
  std::string path_;
  std::unique_ptr<const Router> router_;
};

TEST_F(RouterFileTest, ASavedRouterGivesTheSameScores) {
  COTERIE_ASSERT_OK_AND_ASSIGN(const auto corrected,
                               router_->Correct("python snakes of Peru", "general"));
  COTERIE_ASSERT_OK(corrected->Save(path_));
  COTERIE_ASSERT_OK_AND_ASSIGN(const auto loaded, Router::Load(path_));
  EXPECT_EQ(loaded->domains(), corrected->domains());
  EXPECT_EQ(loaded->version(), corrected->version());
  EXPECT_EQ(loaded->n_corrections(), 1);
  for (const char* prompt : {"python snakes of Peru", "area of a cube", "write a function", ""}) {
    COTERIE_ASSERT_OK_AND_ASSIGN(const DomainScores a, corrected->Classify(prompt));
    COTERIE_ASSERT_OK_AND_ASSIGN(const DomainScores b, loaded->Classify(prompt));
    EXPECT_EQ(a.abstained, b.abstained);
    for (size_t i = 0; i < a.ranked.size(); ++i) {
      EXPECT_EQ(a.ranked[i].domain, b.ranked[i].domain);
      EXPECT_NEAR(a.ranked[i].probability, b.ranked[i].probability, 1e-5);
    }
  }
}

TEST_F(RouterFileTest, AnAddedDomainAndTheExamplesSurviveARestart) {
  COTERIE_ASSERT_OK_AND_ASSIGN(const auto shown, router_->WithExamples(testing::SmallRows()));
  COTERIE_ASSERT_OK_AND_ASSIGN(
      const auto wider, shown->AddDomain("music", {"which chords has this song", "tune a guitar"}));
  COTERIE_ASSERT_OK(wider->Save(path_));
  COTERIE_ASSERT_OK_AND_ASSIGN(const auto loaded, Router::Load(path_));
  EXPECT_EQ(loaded->domains(), wider->domains());
  COTERIE_ASSERT_OK_AND_ASSIGN(const DomainScores a, wider->Explain("tune a guitar"));
  COTERIE_ASSERT_OK_AND_ASSIGN(const DomainScores b, loaded->Explain("tune a guitar"));
  EXPECT_EQ(b.ranked[0].domain, "music");
  EXPECT_NEAR(a.ranked[0].probability, b.ranked[0].probability, 1e-5);
  ASSERT_EQ(b.why.nearest.size(), 3u);
  EXPECT_EQ(a.why.nearest[0].text, b.why.nearest[0].text);
}

TEST_F(RouterFileTest, TheEstimateCoversWhatTheRouterHolds) {
  COTERIE_ASSERT_OK_AND_ASSIGN(const auto corrected, router_->Correct("a b c", "math"));
  COTERIE_ASSERT_OK(corrected->Save(path_));
  COTERIE_ASSERT_OK_AND_ASSIGN(const int64_t estimate, Router::EstimateBytes(path_));
  COTERIE_ASSERT_OK_AND_ASSIGN(const auto loaded, Router::Load(path_));
  EXPECT_GE(estimate, loaded->memory_bytes());
  EXPECT_GT(loaded->memory_bytes(), 0);
}

TEST_F(RouterFileTest, AMissingFileIsNotFound) {
  EXPECT_THAT(Router::Load("/nonexistent/router.gguf"),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("/nonexistent/router.gguf")));
}

TEST_F(RouterFileTest, AFileOfAnotherKindIsNoRouter) {
  GgufWriter file;
  file.SetString("general.architecture", "llama");
  COTERIE_ASSERT_OK(file.Write(path_));
  EXPECT_THAT(Router::Load(path_),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("general.architecture='llama'")));
}

TEST_F(RouterFileTest, AFileCutAnywhereIsRefused) {
  COTERIE_ASSERT_OK(router_->Save(path_));
  const std::string bytes = ReadFile();
  // The last bytes of a file may be padding.
  for (size_t size = 1; size + 32 < bytes.size(); size += bytes.size() / 50) {
    WriteFile(bytes.substr(0, size));
    EXPECT_FALSE(Router::Load(path_).ok()) << size;
  }
}

TEST_F(RouterFileTest, NoFlippedByteHarmsTheProcess) {
  COTERIE_ASSERT_OK(router_->Save(path_));
  const std::string bytes = ReadFile();
  for (size_t i = 0; i < bytes.size(); i += 1 + bytes.size() / 150) {
    std::string damaged = bytes;
    damaged[i] = static_cast<char>(damaged[i] ^ 0xff);
    WriteFile(damaged);
    const auto router = Router::Load(path_);
    if (router.ok()) {
      EXPECT_TRUE((*router)->Classify("write a function").ok()) << i;
    }
  }
}

// Loads a small lexical router file that is right but for one part.
absl::Status LoadWith(const std::string& path, absl::string_view wrong_key) {
  const bool bad_hashes = wrong_key == "hashes", bad_temperature = wrong_key == "temperature";
  const bool bad_domains = wrong_key == "domains", bad_weight = wrong_key == "weight";
  const std::vector<float> idf = {1.0f, 1.0f}, bias = {0.0f, 0.0f};
  std::vector<float> weights = {1.0f, -1.0f, -1.0f, 1.0f};
  if (bad_weight) weights[2] = std::numeric_limits<float>::quiet_NaN();
  const auto bytes = [](const std::vector<float>& values) {
    return absl::Span<const uint8_t>(reinterpret_cast<const uint8_t*>(values.data()),
                                     values.size() * sizeof(float));
  };
  GgufWriter file;
  file.SetString("general.architecture", "coterie-router");
  file.SetInt("router.format", wrong_key == "format" ? 2 : 1);
  file.SetString("router.tier", wrong_key == "tier" ? "psychic" : "lexical");
  file.SetString("router.version", "1");
  file.SetStringArray("router.domains",
                      std::vector<std::string>{"code", bad_domains ? "code" : "general"});
  file.SetFloat("router.temperature", bad_temperature ? 0.0 : 1.0);
  file.SetFloat("router.abstain_below", wrong_key == "abstain" ? std::nan("") : 0.5);
  file.SetInt("router.lexical.features", 2);
  file.SetIntArray("router.lexical.hashes",
                   bad_hashes ? std::vector<int64_t>{9, 3} : std::vector<int64_t>{3, 9});
  file.AddTensor("lexical.idf", TensorType::kF32, {2}, bytes(idf));
  file.AddTensor("lexical.weight", TensorType::kF32, {2, 2}, bytes(weights));
  if (wrong_key == "bias") {
    file.AddTensor("lexical.bias", TensorType::kF32, {1}, bytes(bias).subspan(0, 4));
  } else {
    file.AddTensor("lexical.bias", TensorType::kF32, {2}, bytes(bias));
  }
  if (wrong_key == "corrections") {
    file.SetIntArray("router.corrections.labels", std::vector<int64_t>{2});
    file.SetFloatArray("router.corrections.logits", std::vector<float>{0.0f, 0.0f});
  }
  if (wrong_key == "examples") {
    file.SetIntArray("router.examples.labels", std::vector<int64_t>{1});
    file.SetIntArray("router.examples.counts", std::vector<int64_t>{1});
    file.SetIntArray("router.examples.indices", std::vector<int64_t>{1});
    file.SetFloatArray("router.examples.values", std::vector<float>{1.0f});
    file.SetFloatArray("router.examples.logits", std::vector<float>{0.0f, 0.0f});
    file.SetStringArray("router.examples.texts", std::vector<std::string>{"one", "two"});
  }
  if (wrong_key == "added") {
    file.SetStringArray("router.added_domains", std::vector<std::string>{"code"});
  }
  const absl::Status written = file.Write(path);
  return written.ok() ? Router::Load(path).status() : written;
}

TEST_F(RouterFileTest, EachWrongValueIsNamed) {
  COTERIE_EXPECT_OK(LoadWith(path_, ""));
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"tier", "tier='psychic'"},
      {"domains", "different names"},
      {"temperature", "key=router.temperature"},
      {"abstain", "key=router.abstain_below"},
      {"hashes", "the hashes are out of range or order"},
      {"weight", "a value is not finite: tensor=lexical.weight"},
      {"bias", "wrong type or shape: tensor=lexical.bias"},
      {"corrections", "corrections: unknown label"},
      {"examples", "examples: a text for each is missing"},
      {"added", "router.added_domains must be new and different names"},
  };
  for (const auto& [key, message] : cases) {
    EXPECT_THAT(LoadWith(path_, key), StatusIs(absl::StatusCode::kDataLoss, HasSubstr(message)));
  }
  EXPECT_THAT(LoadWith(path_, "format"),
              StatusIs(absl::StatusCode::kUnimplemented, HasSubstr("router.format=2")));
}

}  // namespace
}  // namespace coterie
