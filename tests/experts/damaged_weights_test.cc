// Weights that are no numbers, which no table of a file shows: the answer ends with one error, and
// nothing else is touched.

#include <cstdlib>
#include <filesystem>
#include <limits>
#include <stop_token>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "experts/generation.h"
#include "tests/experts/tiny_model.h"
#include "tests/status_matchers.h"

namespace coterie {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

class DamagedWeightsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (fs::temp_directory_path() / "coterie_damaged_XXXXXX").string();
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
  }
  void TearDown() override { fs::remove_all(folder_); }

  absl::StatusOr<Generation> Answer(const testing::TinyModel& model) {
    const auto expert = Expert::Open(testing::WriteGguf(model, folder_, "tiny"));
    EXPECT_THAT(expert, testing::IsOk());
    if (!expert.ok()) return expert.status();
    const auto prompt = (*expert)->tokenizer().Encode("abc", false, false);
    EXPECT_THAT(prompt, testing::IsOk());
    WorkerPool pool(2);
    Session session(**expert, pool, SessionShape::ForTokens(32));
    GenerationOptions options;
    options.max_tokens = 4;
    return Generate(
        session, *prompt, options, [](absl::string_view) { return true; }, std::stop_token());
  }

  fs::path folder_;
};

TEST_F(DamagedWeightsTest, NanAndInfinityEndTheAnswerWithOneError) {
  const char* const tensors[] = {"blk.0.attn_norm.weight", "blk.3.attn_k.weight",
                                 "blk.6.attn_v.weight",    "blk.2.ffn_gate.weight",
                                 "blk.6.ffn_down.weight",  "output_norm.weight"};
  for (const char* const name : tensors) {
    for (const float bad :
         {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
      testing::TinyModel model = testing::MakeTinyModel("gemma3");
      model.tensors.at(name).values[5] = bad;
      EXPECT_THAT(Answer(model), testing::StatusIs(absl::StatusCode::kInternal, HasSubstr("logit")))
          << name << " with " << bad;
    }
  }
  EXPECT_THAT(Answer(testing::MakeTinyModel("gemma3")), testing::IsOk());
}

}  // namespace
}  // namespace coterie
