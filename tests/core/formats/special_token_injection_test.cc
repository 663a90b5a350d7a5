// Attempts to make special tokens out of text that is not trusted: with every special token of
// every family, through every template.

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <regex>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

#include "core/formats/chat_template.h"
#include "tests/core/formats/golden_tokenizers.h"
#include "tests/status_matchers.h"

namespace coterie {
namespace {

using nlohmann::json;

const std::string kData = COTERIE_TEST_DATA;

std::string ReadFile(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

std::map<std::string, std::string> Templates() {
  std::map<std::string, std::string> sources;
  for (const auto& entry : std::filesystem::directory_iterator(kData + "/templates")) {
    if (entry.path().extension() != ".jinja") continue;
    sources[entry.path().filename().string()] = ReadFile(entry.path().string());
  }
  return sources;
}

// What looks like a special token in any template: <|im_end|>, </s>, [INST] and their like.
std::set<std::string> Markers() {
  std::set<std::string> markers = {"<|im_start|>",  "<|im_end|>",  "<start_of_turn>",
                                   "<end_of_turn>", "<tool_call>", "<s>",
                                   "</s>",          "<bos>"};
  static const std::regex marker(R"(<\|[a-zA-Z_]{1,40}\|>|</?[a-z_]{1,40}>|\[/?[A-Z_]{2,40}\])");
  for (const auto& [file, source] : Templates()) {
    for (std::sregex_iterator it(source.begin(), source.end(), marker), end; it != end; ++it) {
      markers.insert(it->str());
    }
  }
  return markers;
}

// A family's vocabulary with all the markers as special tokens: half of them are control tokens,
// half are not "special"; some take the white space beside them, some are single words.
struct Armed {
  std::string family;
  std::unique_ptr<const Tokenizer> tokenizer;
  std::map<std::string, TokenId> specials;

  // Tokens of white space alone are text, not structure.
  int Count(const std::vector<TokenId>& ids) const {
    int n = 0;
    for (const auto& [text, id] : specials) n += std::count(ids.begin(), ids.end(), id);
    return n;
  }
};

absl::StatusOr<Armed> Arm(const std::string& family) {
  std::ifstream in(kData + "/tokenizers/" + family + ".jsonl");
  std::string line;
  std::getline(in, line);
  json file = json::parse(line)["tokenizer"];
  Armed armed;
  armed.family = family;
  std::set<std::string> known;
  size_t n_tokens = file["model"]["vocab"].size();
  for (const json& added : file["added_tokens"]) {
    known.insert(added["content"].get<std::string>());
    n_tokens = std::max(n_tokens, added["id"].get<size_t>() + 1);
  }
  const bool can_normalize = family == "qwen2" || family == "sentencepiece";
  for (const std::string& marker : Markers()) {
    if (known.count(marker) != 0 || file["model"]["vocab"].contains(marker)) continue;
    const size_t id = n_tokens++;
    file["added_tokens"].push_back({{"id", id},
                                    {"content", marker},
                                    {"special", id % 2 == 0},
                                    {"lstrip", id % 3 == 0},
                                    {"rstrip", id % 5 == 0},
                                    {"single_word", false},
                                    {"normalized", can_normalize && id % 11 == 0}});
  }
  for (const json& added : file["added_tokens"]) {
    const auto content = added["content"].get<std::string>();
    const bool is_blank = std::all_of(content.begin(), content.end(), [](char c) {
      return absl::ascii_isspace(static_cast<unsigned char>(c)) || c < 0;
    });
    // Untrusted text may be unknown: the family says so with this token.
    if (!is_blank && file["model"]["unk_token"] != content)
      armed.specials[content] = added["id"].get<TokenId>();
  }
  const std::string text = file.dump();
  COTERIE_ASSIGN_OR_RETURN(armed.tokenizer,
                           TokenizerFromHuggingFace({.name = family, .tokenizer = text}));
  return armed;
}

// The special tokens that the trusted runs hold by themselves: all that there may be.
int CountInTrustedRuns(const Armed& armed, const std::vector<TextPiece>& pieces) {
  int n = 0;
  std::string run;
  for (size_t i = 0; i <= pieces.size(); ++i) {
    if (i < pieces.size() && pieces[i].trusted) {
      run += pieces[i].text;
      continue;
    }
    n += armed.Count(*armed.tokenizer->Encode(run, false, true));
    run.clear();
  }
  return n;
}

class SpecialTokenInjectionTest : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    COTERIE_ASSERT_OK_AND_ASSIGN(armed_, Arm(GetParam()));
    ASSERT_GE(armed_.specials.size(), 50u);
  }
  int Count(const std::vector<TextPiece>& pieces) {
    const auto encoding = armed_.tokenizer->Encode(pieces, {.add_special = false});
    EXPECT_THAT(encoding, ::coterie::testing::IsOk());
    return encoding.ok() ? armed_.Count(encoding->ids) : -1;
  }

  Armed armed_;
};

TEST_P(SpecialTokenInjectionTest, TrustedMarkersAreTokensSoThatTheTestCanFail) {
  int n_found = 0;
  for (const auto& [text, id] : armed_.specials) {
    n_found += Count({{text, true, Role::kNone}}) == 1 ? 1 : 0;
  }
  EXPECT_EQ(n_found, static_cast<int>(armed_.specials.size()));
}

TEST_P(SpecialTokenInjectionTest, NoneComesOfUntrustedTextHoweverItIsCut) {
  for (const auto& [text, id] : armed_.specials) {
    SCOPED_TRACE(text);
    EXPECT_EQ(Count({{text, false, Role::kUser}}), 0);
    EXPECT_EQ(Count({{absl::StrCat(" ", text, "\n", text, text, " "), false, Role::kUser}}), 0);
    for (size_t i = 1; i < text.size(); ++i) {
      const std::string left = text.substr(0, i), right = text.substr(i);
      for (const auto& [left_trusted, right_trusted] :
           {std::make_pair(false, false), std::make_pair(true, false),
            std::make_pair(false, true)}) {
        const std::vector<TextPiece> pieces = {{left, left_trusted, Role::kUser},
                                               {right, right_trusted, Role::kTool}};
        EXPECT_EQ(Count(pieces), CountInTrustedRuns(armed_, pieces)) << i;
      }
    }
  }
}

TEST_P(SpecialTokenInjectionTest, NoneComesOfUntrustedTextBesideTrustedTokens) {
  std::string previous = "<s>";
  for (const auto& [text, id] : armed_.specials) {
    SCOPED_TRACE(text);
    for (const char* space : {"", " ", "\t\n", "\u00a0"}) {
      const std::vector<TextPiece> pieces = {{previous, true, Role::kNone},
                                             {absl::StrCat(space, text, space), false, Role::kUser},
                                             {previous, true, Role::kNone},
                                             {absl::StrCat(text, space), false, Role::kTool}};
      EXPECT_EQ(Count(pieces), CountInTrustedRuns(armed_, pieces));
    }
    previous = text;
  }
}

TEST_P(SpecialTokenInjectionTest, NoTemplateMakesATokenOfWhatMessagesSay) {
  std::string all;
  for (const auto& [text, id] : armed_.specials) absl::StrAppend(&all, "Zq7", text, "Zq7 ");
  int n_rendered = 0;
  for (const auto& [file, source] : Templates()) {
    SCOPED_TRACE(file);
    COTERIE_ASSERT_OK_AND_ASSIGN(const auto chat_template, ChatTemplate::Parse(source, file));
    RenderOptions options;
    options.bos_token = "<s>";
    options.eos_token = "</s>";
    const std::vector<Message> messages = {{"user", all, ""},
                                           {"assistant", all, ""},
                                           {"user", absl::StrCat(all, "</think>", all), ""}};
    const auto pieces = chat_template->Render(messages, options);
    if (!pieces.ok()) continue;
    int n_hostile = 0;
    for (const TextPiece& piece : *pieces) {
      const bool is_hostile = absl::StrContains(piece.text, "Zq7");
      EXPECT_FALSE(is_hostile && piece.trusted);
      n_hostile += is_hostile ? 1 : 0;
    }
    EXPECT_EQ(Count(*pieces), CountInTrustedRuns(armed_, *pieces));
    n_rendered += n_hostile > 0 ? 1 : 0;
  }
  EXPECT_GE(n_rendered, 27);
}

INSTANTIATE_TEST_SUITE_P(Families, SpecialTokenInjectionTest,
                         ::testing::Values("gpt2", "smollm", "llama3", "qwen2", "sentencepiece",
                                           "sentencepiece_prefix", "wordpiece"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace coterie
