// adapter_config.json: what it says, and what is refused by its name.

#include "lora/adapter_config.h"

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

#include "tests/status_matchers.h"

namespace coterie {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using Json = nlohmann::json;

constexpr char kUp3[] = "model.layers.3.mlp.up_proj";

// What PEFT 0.21 writes for LoraConfig(r=8, lora_alpha=16, target_modules=["q_proj", "up_proj"]).
Json PeftConfig() {
  return Json::parse(R"({
    "alora_invocation_tokens": null, "alpha_pattern": {}, "arrow_config": null,
    "auto_mapping": null, "base_model_name_or_path": "HuggingFaceTB/SmolLM2-135M-Instruct",
    "bias": "none", "corda_config": null, "ensure_weight_tying": false, "eva_config": null,
    "exclude_modules": null, "fan_in_fan_out": false, "inference_mode": true,
    "init_lora_weights": true, "kasa_config": null, "layer_replication": null,
    "layers_pattern": null, "layers_to_transform": null, "loftq_config": {}, "lora_alpha": 16,
    "lora_bias": false, "lora_dropout": 0.05, "lora_ga_config": null, "megatron_config": null,
    "megatron_core": "megatron.core", "modules_to_save": null, "monteclora_config": null,
    "peft_type": "LORA", "peft_version": "0.21.2", "qalora_group_size": 16, "r": 8,
    "rank_pattern": {}, "revision": null, "target_modules": ["q_proj", "up_proj"],
    "target_parameters": null, "task_type": "CAUSAL_LM", "trainable_token_indices": null,
    "use_bdlora": null, "use_dora": false, "use_qalora": false, "use_rslora": false,
    "velora_config": null})");
}

absl::StatusOr<AdapterConfig> Parse(const Json& config) {
  return AdapterConfig::Parse(config.dump(), "a/adapter_config.json");
}

TEST(AdapterConfigTest, ReadsWhatPeftWrites) {
  COTERIE_ASSERT_OK_AND_ASSIGN(const AdapterConfig config, Parse(PeftConfig()));
  EXPECT_EQ(config.base_name(), "HuggingFaceTB/SmolLM2-135M-Instruct");
  EXPECT_THAT(config.ScaleOf(kUp3, 3, 8), testing::IsOkAndHolds(2.0f));
}

TEST(AdapterConfigTest, RsloraDividesByTheRootOfTheRank) {
  Json json = PeftConfig();
  json["use_rslora"] = true;
  json["rank_pattern"] = {{"up_proj", 4}};
  COTERIE_ASSERT_OK_AND_ASSIGN(const AdapterConfig config, Parse(json));
  EXPECT_THAT(config.ScaleOf(kUp3, 3, 4), testing::IsOkAndHolds(8.0f));
}

TEST(AdapterConfigTest, PatternsGiveModulesRanksAndAlphasOfTheirOwn) {
  Json json = PeftConfig();
  json["rank_pattern"] = {{"model.layers.3.mlp.up_proj", 4}, {"^model\\.layers\\.1\\d\\..*", 2}};
  json["alpha_pattern"] = {{"up_proj", 32}};
  COTERIE_ASSERT_OK_AND_ASSIGN(const AdapterConfig config, Parse(json));
  EXPECT_THAT(config.ScaleOf(kUp3, 3, 4), testing::IsOkAndHolds(8.0f));
  EXPECT_THAT(config.ScaleOf("model.layers.12.self_attn.q_proj", 12, 2),
              testing::IsOkAndHolds(8.0f));
  EXPECT_THAT(config.ScaleOf("model.layers.4.mlp.up_proj", 4, 8), testing::IsOkAndHolds(4.0f));
  EXPECT_THAT(config.ScaleOf("model.layers.4.mlp.up_proj", 4, 9),
              testing::StatusIs(absl::StatusCode::kDataLoss, HasSubstr("rank_pattern")));
}

TEST(AdapterConfigTest, TwoPatternsThatDisagreeAreRefusedForJsonKeepsNoOrder) {
  Json json = PeftConfig();
  json["alpha_pattern"] = {{"up_proj", 32}, {"layers.3.mlp.up_proj", 64}};
  COTERIE_ASSERT_OK_AND_ASSIGN(const AdapterConfig config, Parse(json));
  EXPECT_THAT(config.ScaleOf(kUp3, 3, 8),
              testing::StatusIs(absl::StatusCode::kUnimplemented, HasSubstr("alpha_pattern")));
  EXPECT_THAT(config.ScaleOf("model.layers.4.mlp.up_proj", 4, 8), testing::IsOkAndHolds(4.0f));
}

TEST(AdapterConfigTest, MatricesThatItDoesNotAdaptAreRefused) {
  Json json = PeftConfig();
  json["layers_to_transform"] = {1, 3};
  COTERIE_ASSERT_OK_AND_ASSIGN(const AdapterConfig config, Parse(json));
  COTERIE_EXPECT_OK(config.ScaleOf(kUp3, 3, 8).status());
  EXPECT_THAT(config.ScaleOf("model.layers.2.mlp.up_proj", 2, 8),
              testing::StatusIs(absl::StatusCode::kDataLoss, HasSubstr("layers_to_transform")));
  EXPECT_THAT(config.ScaleOf("model.layers.3.mlp.down_proj", 3, 8),
              testing::StatusIs(absl::StatusCode::kDataLoss, HasSubstr("target_modules")));
}

TEST(AdapterConfigTest, EveryFieldThatIsNotImplementedIsRefusedByName) {
  const std::pair<const char*, Json> fields[] = {
      {"peft_type", "LOHA"},
      {"task_type", "SEQ_CLS"},
      {"use_dora", true},
      {"bias", "lora_only"},
      {"modules_to_save", {"lm_head"}},
      {"fan_in_fan_out", true},
      {"lora_bias", true},
      {"alora_invocation_tokens", {1, 2}},
      {"use_qalora", true},
      {"layer_replication", {{0, 2}}},
      {"target_parameters", {"mlp.w"}},
      {"trainable_token_indices", {7}},
      {"init_lora_weights", "pissa"},
      {"init_lora_weights", "olora"},
      {"init_lora_weights", "corda"},
      {"init_lora_weights", "loftq"},
      {"init_lora_weights", "lora_ga"},
      {"use_bdlora", true},
      {"kasa_config", {{"a", 1}}},
      {"velora_config", {{"a", 1}}},
      {"monteclora_config", {{"a", 1}}},
      {"arrow_config", {{"a", 1}}},
      {"invented_next_year", true},
  };
  for (const auto& [name, value] : fields) {
    Json json = PeftConfig();
    json[name] = value;
    EXPECT_THAT(Parse(json).status(),
                testing::StatusIs(absl::StatusCode::kUnimplemented,
                                  AllOf(HasSubstr(absl::StrCat("field='", name, "'")),
                                        HasSubstr("a/adapter_config.json"))));
  }
  Json json = PeftConfig();
  json["invented_next_year"] = nullptr;
  COTERIE_EXPECT_OK(Parse(json).status());
}

LinearDelta Delta(int64_t layer, LayerLinear linear, int64_t rank, float scale) {
  return {layer, linear, rank, scale, {}, {}};
}

TEST(AdapterConfigTest, WhatIsWrittenGivesTheSameScales) {
  for (const bool rslora : {false, true}) {
    Adapter adapter;
    adapter.rslora = rslora;
    adapter.deltas = {Delta(0, LayerLinear::kQ, 8, 2.0f), Delta(1, LayerLinear::kQ, 8, 2.0f),
                      Delta(1, LayerLinear::kUp, 4, 0.3f), Delta(11, LayerLinear::kUp, 8, 7.1f)};
    const std::string json = AdapterConfigJson(adapter);
    COTERIE_ASSERT_OK_AND_ASSIGN(const AdapterConfig config, AdapterConfig::Parse(json, "x"));
    for (const LinearDelta& delta : adapter.deltas) {
      const auto scale =
          config.ScaleOf(ModuleName(delta.layer, delta.linear), delta.layer, delta.rank);
      COTERIE_ASSERT_OK(scale.status());
      EXPECT_FLOAT_EQ(*scale, delta.scale) << json;
    }
  }
}

TEST(AdapterConfigTest, TargetsAreShortNamesAndLayersWhereTheyAreAProduct) {
  Adapter adapter;
  for (const int64_t layer : {2, 3}) {
    adapter.deltas.push_back(Delta(layer, LayerLinear::kGate, 8, 2));
    adapter.deltas.push_back(Delta(layer, LayerLinear::kUp, 8, 2));
  }
  Json json = Json::parse(AdapterConfigJson(adapter));
  EXPECT_EQ(json["target_modules"], Json({"gate_proj", "up_proj"}));
  EXPECT_EQ(json["layers_to_transform"], Json({2, 3}));
  adapter.deltas.pop_back();
  json = Json::parse(AdapterConfigJson(adapter));
  EXPECT_EQ(json["target_modules"].size(), 3u);
  EXPECT_EQ(json["target_modules"][0], "model.layers.2.mlp.gate_proj");
  EXPECT_EQ(json["layers_to_transform"], Json());
}

TEST(ModulePatternTest, MatchesLikePeft) {
  // Checked with re.match(rf"(.*\.)?({pattern})$", module) of Python.
  const struct {
    const char* pattern;
    const char* module;
    bool matches;
  } rows[] = {
      {"up_proj", kUp3, true},
      {"p_proj", kUp3, false},
      {"mlp.up_proj", kUp3, true},
      {"layers.3.mlp.up_proj", kUp3, true},
      {"layers.13.mlp.up_proj", kUp3, false},
      {"^model.layers.3.mlp.up_proj", kUp3, true},
      {"^layers.3.mlp.up_proj", kUp3, false},
      {"layers\\.\\d+\\.mlp\\..*", kUp3, true},
      {"layers\\.\\d\\.mlp\\..*", "model.layers.13.mlp.up_proj", false},
      {"model.*", kUp3, true},
      {"model.*down_proj", kUp3, false},
      {"mlp.up_proj$", kUp3, true},
      {"up_pro.+j", kUp3, false},
  };
  for (const auto& row : rows) {
    COTERIE_ASSERT_OK_AND_ASSIGN(const ModulePattern pattern, ModulePattern::Parse(row.pattern));
    EXPECT_EQ(pattern.Matches(row.module), row.matches) << row.pattern << " on " << row.module;
  }
}

TEST(ModulePatternTest, MoreOfRegularExpressionsIsRefusedAndTimeIsBounded) {
  for (const char* pattern : {"(a|b)", "q_proj|v_proj", "[qv]_proj", "a{2}", "a?", "\\w", "a\\"}) {
    EXPECT_THAT(ModulePattern::Parse(pattern),
                testing::StatusIs(absl::StatusCode::kUnimplemented, HasSubstr("pattern=")));
  }
  EXPECT_FALSE(ModulePattern::Parse(std::string(257, 'a')).ok());
  std::string nasty;
  for (int i = 0; i < 60; ++i) nasty += ".*a";
  COTERIE_ASSERT_OK_AND_ASSIGN(const ModulePattern pattern, ModulePattern::Parse(nasty + "b"));
  EXPECT_FALSE(pattern.Matches(std::string(2000, 'a')));
}

}  // namespace
}  // namespace coterie
