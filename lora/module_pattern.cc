#include "lora/module_pattern.h"

#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

#include "core/base/quote.h"

namespace coterie {
namespace {

constexpr size_t kMaxPatternBytes = 256;

bool IsPlain(char c) {
  return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '-';
}

}  // namespace

absl::StatusOr<ModulePattern> ModulePattern::Parse(absl::string_view pattern) {
  if (pattern.empty() || pattern.size() > kMaxPatternBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("a module pattern has 1 to 256 bytes: pattern=", Quote(pattern)));
  }
  ModulePattern parsed;
  parsed.anchored_ = absl::ConsumePrefix(&pattern, "^");
  absl::ConsumeSuffix(&pattern, "$");
  const absl::string_view whole = pattern;
  while (!pattern.empty()) {
    Item item;
    const char c = pattern.front();
    if (absl::ConsumePrefix(&pattern, "\\d")) {
      item.kind = Kind::kDigit;
    } else if (absl::ConsumePrefix(&pattern, "\\.")) {
      item.literal = '.';
    } else if (c == '.' || IsPlain(c)) {
      item.kind = c == '.' ? Kind::kAny : Kind::kLiteral;
      item.literal = c;
      pattern.remove_prefix(1);
    } else {
      return absl::UnimplementedError(
          absl::StrCat("a module pattern uses more of regular expressions than is supported: ",
                       "pattern=", Quote(whole), ", at=", Quote(pattern)));
    }
    if (!pattern.empty() && (pattern.front() == '*' || pattern.front() == '+')) {
      item.repeats = true;
      item.may_be_none = pattern.front() == '*';
      pattern.remove_prefix(1);
    }
    parsed.items_.push_back(item);
  }
  return parsed;
}

bool ModulePattern::Item::Takes(char c) const {
  switch (kind) {
    case Kind::kAny:
      return true;
    case Kind::kDigit:
      return absl::ascii_isdigit(static_cast<unsigned char>(c));
    case Kind::kLiteral:
      return c == literal;
  }
  return false;
}

// reached[i]: the first i items can match the text so far.
bool ModulePattern::MatchesWhole(absl::string_view text) const {
  std::vector<bool> reached(items_.size() + 1);
  reached[0] = true;
  const auto skip_optional = [&] {
    for (size_t i = 0; i < items_.size(); ++i) {
      if (reached[i] && items_[i].may_be_none) reached[i + 1] = true;
    }
  };
  skip_optional();
  for (const char c : text) {
    std::vector<bool> next(items_.size() + 1);
    for (size_t i = 0; i < items_.size(); ++i) {
      if (!items_[i].Takes(c)) continue;
      // Item i takes c as its first character, or as one more.
      if (reached[i] || (reached[i + 1] && items_[i].repeats)) next[i + 1] = true;
    }
    reached = std::move(next);
    skip_optional();
  }
  return reached[items_.size()];
}

bool ModulePattern::Matches(absl::string_view module) const {
  if (MatchesWhole(module)) return true;
  for (size_t i = 0; !anchored_ && i < module.size(); ++i) {
    if (module[i] == '.' && MatchesWhole(module.substr(i + 1))) return true;
  }
  return false;
}

}  // namespace coterie
