// Models of several files: parts and folders that are incomplete, foreign or hostile.

#include <unistd.h>

#include <cstdlib>
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

#include "tests/experts/tiny_model.h"
#include "tests/status_matchers.h"

namespace coterie {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::IsOk;
using testing::ReadFile;
using testing::StatusIs;
using testing::WriteFile;

class ModelFilesTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (fs::temp_directory_path() / "coterie_models_XXXXXX").string();
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
  }
  void TearDown() override { fs::remove_all(folder_); }

  static absl::Status Open(const fs::path& path) {
    return ModelFiles::Open(path.string()).status();
  }
  // A folder of two shards, and a change of its configuration or its index.
  fs::path Shards() {
    testing::WriteHuggingFaceFolder(testing::MakeTinyModel("qwen2"), folder_ / "hf",
                                    SafetensorsType::kBF16, 2);
    return folder_ / "hf";
  }
  static void Change(const fs::path& file, const std::string& from, const std::string& to) {
    const std::string before = ReadFile(file);
    const std::string after = absl::StrReplaceAll(before, {{from, to}});
    ASSERT_NE(before, after) << from;
    WriteFile(file, after);
  }
  // The status of a folder whose configuration has other values.
  absl::Status WithConfig(const std::string& architecture, const nlohmann::json& changes) {
    const fs::path folder = folder_ / "config";
    testing::WriteHuggingFaceFolder(testing::MakeTinyModel(architecture), folder,
                                    SafetensorsType::kBF16);
    nlohmann::json config = nlohmann::json::parse(ReadFile(folder / "config.json"));
    config.update(changes);
    WriteFile(folder / "config.json", config.dump());
    return Open(folder);
  }

  fs::path folder_;
};

TEST_F(ModelFilesTest, AMissingPartIsNamed) {
  const std::string first = testing::WriteGguf(testing::MakeTinyModel("qwen2"), folder_, "m", 3);
  fs::remove(folder_ / "m-00002-of-00003.gguf");
  EXPECT_THAT(Open(first),
              StatusIs(absl::StatusCode::kNotFound,
                       AllOf(HasSubstr("part=2 of 3"), HasSubstr("m-00002-of-00003.gguf"))));
  EXPECT_THAT(WeightFilesOf(first),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("m-00002-of-00003.gguf")));
}

TEST_F(ModelFilesTest, PartsOfOtherFilesAreRefused) {
  const testing::TinyModel model = testing::MakeTinyModel("qwen2");
  const std::string first = testing::WriteGguf(model, folder_, "m", 3);
  testing::WriteGguf(testing::MakeTinyModel("gemma3"), folder_, "other", 3);
  const fs::path second = folder_ / "m-00002-of-00003.gguf";
  fs::copy(folder_ / "other-00002-of-00003.gguf", second, fs::copy_options::overwrite_existing);
  EXPECT_THAT(Open(first),
              StatusIs(absl::StatusCode::kDataLoss,
                       AllOf(HasSubstr("does not belong"), HasSubstr(second.string()))));
  fs::copy(folder_ / "m-00003-of-00003.gguf", second, fs::copy_options::overwrite_existing);
  EXPECT_THAT(Open(first), StatusIs(absl::StatusCode::kDataLoss, HasSubstr("split.no=2")));
  fs::copy(testing::WriteGguf(model, folder_, "whole"), second,
           fs::copy_options::overwrite_existing);
  EXPECT_THAT(Open(first), StatusIs(absl::StatusCode::kDataLoss, HasSubstr("does not belong")));
}

TEST_F(ModelFilesTest, OnlyTheFirstPartOpensAModelAndOnlyUnderItsName) {
  const std::string first = testing::WriteGguf(testing::MakeTinyModel("qwen2"), folder_, "m", 3);
  EXPECT_THAT(Open(first), IsOk());
  EXPECT_THAT(Open(folder_ / "m-00002-of-00003.gguf"),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("part=2 of 3")));
  fs::rename(first, folder_ / "renamed.gguf");
  EXPECT_THAT(Open(folder_ / "renamed.gguf"),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("must be named")));
}

TEST_F(ModelFilesTest, AFolderSaysWhatItLacks) {
  fs::create_directories(folder_ / "empty");
  EXPECT_THAT(Open(folder_ / "empty"),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("config.json")));
  const fs::path shards = Shards();
  EXPECT_THAT(Open(shards), IsOk());
  fs::remove(shards / "model-00002-of-00002.safetensors");
  EXPECT_THAT(Open(shards),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("model-00002-of-00002.safetensors")));
  fs::remove(shards / "model.safetensors.index.json");
  EXPECT_THAT(Open(shards),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("neither model.safetensors nor")));
}

TEST_F(ModelFilesTest, AForeignShardIsRefused) {
  const fs::path shards = Shards();
  fs::copy(shards / "model-00001-of-00002.safetensors", shards / "model-00002-of-00002.safetensors",
           fs::copy_options::overwrite_existing);
  EXPECT_THAT(Open(shards), StatusIs(absl::StatusCode::kDataLoss,
                                     HasSubstr("a shard lacks a tensor that the index promises")));
}

TEST_F(ModelFilesTest, ShardsStayInTheirFolder) {
  for (const char* const name :
       {"../x.safetensors", "/etc/x.safetensors", "a/x.safetensors", "..\\\\x.safetensors",
        ".x.safetensors", "x.bin", "", "x\\u0000.safetensors"}) {
    const fs::path shards = Shards();
    Change(shards / "model.safetensors.index.json", "model-00002-of-00002.safetensors", name);
    EXPECT_THAT(Open(shards), StatusIs(absl::StatusCode::kDataLoss, HasSubstr("own folder")))
        << name;
  }
}

TEST_F(ModelFilesTest, AnIndexThatIsNoneIsRefused) {
  for (const std::string& text :
       {std::string("{"), std::string("[]"), std::string("{\"weight_map\": {}}"),
        std::string("{\"weight_map\": {\"a\": 1}}"), std::string(100000, '['),
        "{\"weight_map\": {\"a\": \"" + std::string(2 << 20, 'x') + "\"}}"}) {
    const fs::path shards = Shards();
    WriteFile(shards / "model.safetensors.index.json", text);
    EXPECT_THAT(Open(shards), StatusIs(absl::StatusCode::kDataLoss, HasSubstr("index")))
        << text.substr(0, 40);
  }
}

TEST_F(ModelFilesTest, WhatHasNoImplementationIsNamed) {
  const auto is_unsupported = [](const std::string& what) {
    return StatusIs(absl::StatusCode::kUnimplemented,
                    AllOf(HasSubstr(what), HasSubstr("config.json")));
  };
  EXPECT_THAT(WithConfig("llama", {{"model_type", "mamba"}}), is_unsupported("model_type='mamba'"));
  EXPECT_THAT(WithConfig("llama", {{"hidden_act", "gelu"}}), is_unsupported("hidden_act='gelu'"));
  EXPECT_THAT(WithConfig("llama", {{"rope_scaling", {{"rope_type", "yarn"}}}}),
              is_unsupported("scaling='yarn'"));
  EXPECT_THAT(WithConfig("llama", {{"quantization_config", {{"bits", 4}}}}),
              is_unsupported("quantization_config"));
  EXPECT_THAT(WithConfig("qwen2", {{"use_sliding_window", true}}),
              is_unsupported("use_sliding_window"));
  EXPECT_THAT(WithConfig("gemma3", {{"final_logit_softcapping", 30.0}}),
              is_unsupported("final_logit_softcapping='30.0'"));
}

TEST_F(ModelFilesTest, AConfigurationThatCannotBeIsRefused) {
  const nlohmann::json wrong[] = {
      {{"num_hidden_layers", -1}},
      {{"num_hidden_layers", 1e9}},
      {{"num_hidden_layers", "7"}},
      {{"num_hidden_layers", nullptr}},
      {{"num_attention_heads", 0}},
      {{"hidden_size", 1u << 31}},
      {{"hidden_size", uint64_t{1} << 63}},
      {{"num_key_value_heads", 3}},
      {{"head_dim", 15}},
      {{"rms_norm_eps", 0}},
      {{"rope_theta", -1}},
      {{"sliding_window", -5}},
      {{"layer_types", {"full_attention"}}},
      {{"layer_types", "full"}},
      {{"sliding_window_pattern", 0}},
      {{"rope_scaling", 8}},
      {{"query_pre_attn_scalar", 0}},
      {{"rope_scaling", {{"rope_type", "linear"}, {"factor", 0}}}},
      {{"rope_scaling", {{"rope_type", "llama3"}, {"high_freq_factor", 1}}}},
  };
  for (const nlohmann::json& changes : wrong) {
    EXPECT_THAT(WithConfig("gemma3", changes),
                StatusIs(absl::StatusCode::kDataLoss, HasSubstr("config.json")))
        << changes.dump();
  }
}

TEST_F(ModelFilesTest, AHeadThatIsNeitherThereNorTiedIsMissed) {
  const fs::path folder = folder_ / "hf";
  testing::TinyModel model = testing::MakeTinyModel("qwen2");
  model.tensors.erase("output.weight");
  testing::WriteHuggingFaceFolder(model, folder, SafetensorsType::kBF16);
  EXPECT_THAT(Open(folder), StatusIs(absl::StatusCode::kNotFound, HasSubstr("lm_head.weight")));
  Change(folder / "config.json", "\"tie_word_embeddings\":false", "\"tie_word_embeddings\":true");
  EXPECT_THAT(Open(folder), IsOk());
}

// Versions 4 and 5 of transformers write the same angles differently.
TEST_F(ModelFilesTest, RopeIsReadFromOldAndNewConfigurations) {
  const fs::path folder = folder_ / "config";
  ASSERT_THAT(WithConfig("gemma3", nlohmann::json::object()), IsOk());
  nlohmann::json config = nlohmann::json::parse(ReadFile(folder / "config.json"));
  for (const char* const old : {"rope_theta", "rope_local_base_freq", "rope_scaling"}) {
    config.erase(old);
  }
  config["rope_parameters"] = {
      {"full_attention", {{"rope_type", "linear"}, {"factor", 8.0}, {"rope_theta", 5000.0}}},
      {"sliding_attention", {{"rope_type", "default"}, {"rope_theta", 10000.0}}}};
  WriteFile(folder / "config.json", config.dump());
  const auto files = ModelFiles::Open(folder.string());
  ASSERT_THAT(files, IsOk());
  const absl::StatusOr<ArchSpec> spec = (*files)->ReadSpec();
  ASSERT_THAT(spec, IsOk());
  EXPECT_EQ(spec->rope_angles.base, 5000);
  EXPECT_EQ(spec->rope_angles.position_scale, 0.125f);
  EXPECT_EQ(spec->window_rope_angles.base, 10000);
  EXPECT_EQ(spec->window_rope_angles.position_scale, 1);
}

// Llama 3.2's numbers; the factors are those of transformers' formula, computed apart.
TEST_F(ModelFilesTest, Llama3ScalingStretchesLongWavesOnly) {
  const fs::path folder = folder_ / "config";
  ASSERT_THAT(WithConfig("llama", {{"head_dim", 64},
                                   {"rope_theta", 500000.0},
                                   {"rope_scaling",
                                    {{"rope_type", "llama3"},
                                     {"factor", 32.0},
                                     {"low_freq_factor", 1.0},
                                     {"high_freq_factor", 4.0},
                                     {"original_max_position_embeddings", 8192}}}}),
              IsOk());
  const auto files = ModelFiles::Open(folder.string());
  ASSERT_THAT(files, IsOk());
  const std::vector<float> divisors = (*files)->ReadSpec()->rope_angles.divisors;
  ASSERT_EQ(divisors.size(), 32u);
  EXPECT_EQ(divisors[0], 1);
  EXPECT_EQ(divisors[14], 1);
  EXPECT_NEAR(divisors[15], 1.65133, 1e-4);
  EXPECT_NEAR(divisors[16], 3.29226, 1e-3);
  EXPECT_NEAR(divisors[17], 9.66673, 1e-3);
  EXPECT_EQ(divisors[18], 32);
  EXPECT_EQ(divisors[31], 32);
}

}  // namespace
}  // namespace coterie
