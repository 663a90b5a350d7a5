#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace coterie {

// A key of PEFT's rank_pattern and alpha_pattern: a regular expression that matches a module's name
// or what follows one of its dots ("q_proj", "layers.3.mlp.up_proj", "^model\.layers\.\d+\.mlp.*").
// Of regular expressions it knows a leading ^, a trailing $, ".", "\.", "\d", and * and + after
// them; time is within the product of both lengths. Const after construction.
class ModulePattern {
 public:
  // kUnimplemented for any other construct, kInvalidArgument for a pattern over 256 bytes.
  static absl::StatusOr<ModulePattern> Parse(absl::string_view pattern);

  bool Matches(absl::string_view module) const;

 private:
  enum class Kind : uint8_t { kLiteral, kAny, kDigit };
  struct Item {
    Kind kind = Kind::kLiteral;
    char literal = 0;
    bool repeats = false;      // * or +
    bool may_be_none = false;  // *

    bool Takes(char c) const;
  };

  bool MatchesWhole(absl::string_view text) const;

  std::vector<Item> items_;
  bool anchored_ = false;
};

}  // namespace coterie
