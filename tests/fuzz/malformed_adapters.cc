// adapter_config.json of PEFT, with one thing wrong.

#include "absl/strings/str_cat.h"

#include "tests/fuzz/malformed_file.h"

namespace coterie::testing {
namespace {

constexpr auto kDamaged = absl::StatusCode::kDataLoss;
constexpr auto kUnsupported = absl::StatusCode::kUnimplemented;
constexpr auto kMistake = absl::StatusCode::kInvalidArgument;

// The valid configuration with `fields` in front of others, which come last and so count.
std::string With(absl::string_view fields) {
  return absl::StrCat("{\"peft_type\": \"LORA\", \"r\": 2, \"lora_alpha\": 4, ",
                      "\"target_modules\": [\"up_proj\"], ", fields, "}");
}

std::string ManyPatterns(int n) {
  std::string patterns = "\"rank_pattern\": {";
  for (int i = 0; i < n; ++i) absl::StrAppend(&patterns, i == 0 ? "" : ",", "\"a", i, "\": 2");
  return patterns + "}";
}

}  // namespace

std::vector<MalformedFile> MalformedAdapterConfigs() {
  return {
      {"Empty", "", kDamaged, ""},
      {"NotJson", "{\"r\": ", kDamaged, ""},
      {"List", "[]", kDamaged, ""},
      {"NoType", "{\"r\": 2, \"lora_alpha\": 4}", kDamaged, "peft_type"},
      {"TypeLoha", "{\"peft_type\": \"LOHA\"}", kUnsupported, "peft_type"},
      {"NoRank", "{\"peft_type\": \"LORA\", \"lora_alpha\": 4}", kDamaged, "'r'"},
      {"RankZero", With("\"r\": 0"), kDamaged, "'r'"},
      {"RankHuge", With("\"r\": 18446744073709551615"), kDamaged, "'r'"},
      {"RankReal", With("\"r\": 2.5"), kDamaged, "'r'"},
      {"RankText", With("\"r\": \"2\""), kDamaged, "'r'"},
      {"AlphaHuge", With("\"lora_alpha\": 1e308"), kDamaged, "'lora_alpha'"},
      {"AlphaText", With("\"lora_alpha\": \"4\""), kDamaged, "'lora_alpha'"},
      {"RsloraText", With("\"use_rslora\": \"yes\""), kDamaged, "'use_rslora'"},
      {"BaseNumber", With("\"base_model_name_or_path\": 3"), kDamaged, "base_model"},
      {"TargetsNumber", With("\"target_modules\": 3"), kDamaged, "'target_modules'"},
      {"TargetsNested", With("\"target_modules\": [[\"a\"]]"), kDamaged, "'target_modules'"},
      {"TargetsOther", With("\"target_modules\": [\"down_proj\"]"), kDamaged, "target_modules"},
      {"LayersText", With("\"layers_to_transform\": [\"1\"]"), kDamaged, "layers_to_transform"},
      {"LayersOther", With("\"layers_to_transform\": 5"), kDamaged, "layers_to_transform"},
      {"PatternList", With("\"rank_pattern\": [2]"), kDamaged, "'rank_pattern'"},
      {"PatternRankZero", With("\"rank_pattern\": {\"a\": 0}"), kDamaged, "rank_pattern"},
      {"PatternRank", With("\"rank_pattern\": {\"up_proj\": 3}"), kDamaged, "rank_pattern"},
      {"PatternsMany", With(ManyPatterns(5000)), kDamaged, "'rank_pattern'"},
      {"PatternRegex", With("\"alpha_pattern\": {\"(a+)+$\": 2}"), kUnsupported, "alpha_pattern"},
      {"PatternLong", With("\"alpha_pattern\": {\"" + std::string(300, 'a') + "\": 2}"), kMistake,
       "alpha_pattern"},
      {"PatternsDisagree", With("\"alpha_pattern\": {\"up_proj\": 2, \"mlp.up_proj\": 3}"),
       kUnsupported, "alpha_pattern"},
      {"Dora", With("\"use_dora\": true"), kUnsupported, "'use_dora'"},
      {"Unknown", With("\"a_field\": {\"b\": 1}"), kUnsupported, "'a_field'"},
      {"UnknownLong", With("\"" + std::string(100000, 'x') + "\": 1"), kUnsupported, "'xxx"},
      {"Deep", With("\"x\": " + std::string(50000, '[') + std::string(50000, ']')), kDamaged, ""},
      {"NotUtf8", With("\"\xff\": 1"), kDamaged, ""},
      {"TooLong", With("\"x\": \"" + std::string(2 << 20, 'x') + "\""), kDamaged, ""},
  };
}

std::string ValidAdapterConfig() {
  return With(
      "\"rank_pattern\": {}, \"alpha_pattern\": {\"layers.1\\\\d*.mlp.up_proj\": 8}, "
      "\"use_rslora\": true, \"bias\": \"none\", \"layers_to_transform\": [0], "
      "\"base_model_name_or_path\": \"org/tiny\"");
}

}  // namespace coterie::testing
