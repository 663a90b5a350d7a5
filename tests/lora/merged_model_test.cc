// Merged models are whole models that answer as base and adapter do.

#include "lora/merged_model.h"

#include <cmath>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "core/formats/gguf_file.h"
#include "experts/model_files.h"
#include "tests/experts/tiny_adapter.h"
#include "tests/experts/tiny_model.h"
#include "tests/fuzz/scratch_folder.h"
#include "tests/status_matchers.h"

namespace coterie {
namespace {

using ::testing::HasSubstr;
using testing::LogitsOf;
using testing::StatusIs;

class MergedModelTest : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    model_ = testing::MakeTinyModel(GetParam());
    COTERIE_ASSERT_OK_AND_ASSIGN(
        base_, ModelFiles::Open(testing::WriteGguf(model_, folder_.path(), "tiny")));
    adapter_.deltas = DeltasFromServed(testing::TinyDeltas(model_.spec), model_.spec);
  }

  // Logits of a file, which need not have a tokenizer.
  static std::vector<float> Logits(const std::string& path, const LinearDeltaSet* adapter) {
    const auto files = ModelFiles::Open(path);
    EXPECT_THAT(files, testing::IsOk());
    return files.ok() ? LogitsOf(**files, testing::TinyIds(20), 20, adapter) : std::vector<float>();
  }
  static double LargestDifference(const std::vector<float>& a, const std::vector<float>& b) {
    double largest = a.size() == b.size() ? 0 : HUGE_VAL;
    for (size_t i = 0; i < a.size() && i < b.size(); ++i) {
      largest = std::max(largest, std::fabs(static_cast<double>(a[i]) - b[i]));
    }
    return largest;
  }

  const testing::ScratchFolder folder_;
  testing::TinyModel model_;
  std::unique_ptr<const ModelFiles> base_;
  Adapter adapter_;
};

TEST_P(MergedModelTest, AGgufFileAnswersAsBaseAndAdapterDoAndKeepsAllKeys) {
  COTERIE_ASSERT_OK_AND_ASSIGN(const DeltaSnapshot set, Serve(adapter_, model_.spec, "a@1"));
  const std::vector<float> unmerged = Logits(folder_.path("tiny.gguf"), set.get());
  const double effect = LargestDifference(unmerged, Logits(folder_.path("tiny.gguf"), nullptr));
  const std::pair<TensorType, double> types[] = {
      {TensorType::kF16, 0.02}, {TensorType::kBF16, 0.15}, {TensorType::kQ8_0, 0.5}};
  COTERIE_ASSERT_OK_AND_ASSIGN(const auto before, GgufFile::Open(folder_.path("tiny.gguf")));
  for (const auto& [type, bound] : types) {
    const std::string path = folder_.path(std::string(Traits(type).name) + ".gguf");
    COTERIE_ASSERT_OK(WriteMergedGguf(adapter_, *base_, model_.spec, type, path));
    const double difference = LargestDifference(Logits(path, nullptr), unmerged);
    EXPECT_LT(difference, bound) << Traits(type).name;
    EXPECT_LT(difference, effect / 4) << Traits(type).name;
    COTERIE_ASSERT_OK_AND_ASSIGN(const auto after, GgufFile::Open(path));
    ASSERT_EQ(after->Keys(), before->Keys());
    for (const absl::string_view key : before->Keys()) {
      EXPECT_EQ(after->Describe(key), before->Describe(key));
    }
    EXPECT_EQ(after->TensorNames(), before->TensorNames());
  }
}

TEST_P(MergedModelTest, AHuggingFaceFolderAnswersAsBaseAndAdapterDo) {
  testing::WriteHuggingFaceFolder(model_, folder_.path("hf"), SafetensorsType::kF32, 2);
  testing::WriteFile(folder_.path("hf/tokenizer.json"), "{}");
  COTERIE_ASSERT_OK_AND_ASSIGN(const auto files, ModelFiles::Open(folder_.path("hf")));
  COTERIE_ASSERT_OK_AND_ASSIGN(const ArchSpec spec, files->ReadSpec());
  COTERIE_ASSERT_OK_AND_ASSIGN(const DeltaSnapshot set, Serve(adapter_, spec, "a@1"));
  const std::vector<float> unmerged = Logits(folder_.path("hf"), set.get());
  COTERIE_ASSERT_OK(
      WriteMergedHuggingFace(adapter_, *files, spec, TensorType::kF16, folder_.path("out")));
  EXPECT_LT(LargestDifference(Logits(folder_.path("out"), nullptr), unmerged), 0.02);
  EXPECT_EQ(testing::ReadFile(folder_.path("out/tokenizer.json")), "{}");
  EXPECT_THAT(WriteMergedHuggingFace(adapter_, *files, spec, TensorType::kQ8_0, "out"),
              StatusIs(absl::StatusCode::kUnimplemented, HasSubstr("not Q8_0")));
  EXPECT_THAT(WriteMergedGguf(adapter_, *files, spec, TensorType::kF16, "out.gguf"),
              StatusIs(absl::StatusCode::kUnimplemented, HasSubstr("merged-hf instead")));
}

TEST_P(MergedModelTest, AFormatThatTheBaseIsNotInIsRefusedAndSoAreOtherTypes) {
  EXPECT_THAT(
      WriteMergedHuggingFace(adapter_, *base_, model_.spec, TensorType::kF16, folder_.path("out")),
      StatusIs(absl::StatusCode::kUnimplemented, HasSubstr("export as merged-gguf instead")));
  EXPECT_THAT(ParseMergedType("Q4_0"),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("'Q4_0'")));
  adapter_.deltas[0].layer = 99;
  EXPECT_THAT(
      WriteMergedGguf(adapter_, *base_, model_.spec, TensorType::kF16, folder_.path("x.gguf")),
      StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("layer=99")));
}

INSTANTIATE_TEST_SUITE_P(All, MergedModelTest, ::testing::Values("llama", "qwen2", "gemma3"));

}  // namespace
}  // namespace coterie
