// Every architecture, from the same tiny weights in every form in which models are stored, against
// float64.

#include <cstdlib>
#include <filesystem>

#include "gtest/gtest.h"

#include "tests/experts/tiny_model.h"
#include "tests/status_matchers.h"

namespace coterie {
namespace {

namespace fs = std::filesystem;
using testing::LogitsOf;
using testing::TinyIds;
using testing::TinyModel;

class ArchitectureTest : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    std::string pattern = (fs::temp_directory_path() / "coterie_models_XXXXXX").string();
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
    model_ = testing::MakeTinyModel(GetParam());
  }
  void TearDown() override { fs::remove_all(folder_); }

  std::unique_ptr<const ModelFiles> Open(const fs::path& path) {
    absl::StatusOr<std::unique_ptr<const ModelFiles>> files = ModelFiles::Open(path.string());
    EXPECT_THAT(files, testing::IsOk());
    return files.ok() ? *std::move(files) : nullptr;
  }
  std::unique_ptr<const ModelFiles> OpenGguf() {
    return Open(testing::WriteGguf(model_, folder_, "tiny"));
  }
  std::unique_ptr<const ModelFiles> OpenFolder(SafetensorsType type, int n_shards = 1) {
    testing::WriteHuggingFaceFolder(model_, folder_ / "hf", type, n_shards);
    return Open(folder_ / "hf");
  }
  void ExpectIsTheReference(const std::vector<float>& logits, const std::vector<int32_t>& ids) {
    const std::vector<double> expected = testing::ReferenceLogits(model_, ids);
    ASSERT_EQ(logits.size(), expected.size());
    // Logits reach 5; a key or value on the border between two f16 steps moves them by 5e-4.
    for (size_t i = 0; i < logits.size(); ++i) {
      ASSERT_NEAR(logits[i], expected[i], 2e-3) << "token " << i / 96 << ", logit " << i % 96;
    }
  }

  fs::path folder_;
  TinyModel model_;
};

TEST_P(ArchitectureTest, GgufGivesTheLogitsOfAFloat64Reference) {
  const std::vector<int32_t> ids = TinyIds(150);
  const auto files = OpenGguf();
  ASSERT_NE(files, nullptr);
  ExpectIsTheReference(LogitsOf(*files, ids), ids);
}

TEST_P(ArchitectureTest, AnySplitOfATextIntoPassesGivesTheSameBits) {
  const std::vector<int32_t> ids = TinyIds(150);
  const auto files = OpenGguf();
  ASSERT_NE(files, nullptr);
  const std::vector<float> whole = LogitsOf(*files, ids);
  for (const int64_t chunk : {1, 7, 33, 64}) {
    EXPECT_EQ(LogitsOf(*files, ids, chunk), whole) << "passes of " << chunk;
  }
}

TEST_P(ArchitectureTest, AHuggingFaceFolderOfEveryTypeGivesTheSameLogits) {
  const std::vector<int32_t> ids = TinyIds(40);
  const SafetensorsType types[] = {SafetensorsType::kF32, SafetensorsType::kF16,
                                   SafetensorsType::kBF16};
  for (const SafetensorsType type : types) {
    SCOPED_TRACE(std::string(SafetensorsTypeName(type)));
    const auto files = OpenFolder(type);
    ASSERT_NE(files, nullptr);
    ExpectIsTheReference(LogitsOf(*files, ids), ids);
  }
}

TEST_P(ArchitectureTest, AHuggingFaceFolderInShardsGivesTheSameBits) {
  const std::vector<int32_t> ids = TinyIds(20);
  const std::vector<float> whole = LogitsOf(*OpenFolder(SafetensorsType::kBF16), ids);
  fs::remove_all(folder_ / "hf");
  EXPECT_EQ(LogitsOf(*OpenFolder(SafetensorsType::kBF16, 3), ids), whole);
}

TEST_P(ArchitectureTest, AGgufFileInPartsGivesTheSameBits) {
  const std::vector<int32_t> ids = TinyIds(20);
  const std::vector<float> whole = LogitsOf(*OpenGguf(), ids);
  const auto files = Open(testing::WriteGguf(model_, folder_, "parts", 4));
  ASSERT_NE(files, nullptr);
  EXPECT_EQ(files->mappings().size(), 4u);
  EXPECT_EQ(LogitsOf(*files, ids), whole);
}

INSTANTIATE_TEST_SUITE_P(All, ArchitectureTest, ::testing::Values("llama", "qwen2", "gemma3"));

}  // namespace
}  // namespace coterie
