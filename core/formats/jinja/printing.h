#pragma once

// How values turn into text: Python's str() and repr(), and json.dumps(). Strings inside keep their
// origins; punctuation, digits and the words True, False, None (true, false, null) count as text of
// the template, since no message can choose them to spell a special token.

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/statusor.h"

#include "core/formats/jinja/value.h"
#include "core/formats/jinja/work.h"

namespace coterie::jinja {

// Python's repr of a float: the shortest digits that read back as the same number.
std::string FormatReal(double value);

// kInvalidArgument for kinds whose text in Python is an address (functions, generators).
absl::StatusOr<Text> ToText(const Value& value, Work& work);
absl::StatusOr<Text> Represent(const Value& value, Work& work);

struct JsonStyle {
  bool ensure_ascii = false;
  bool sort_keys = false;
  // What one level of indentation is; without a value everything stands on one line.
  std::optional<std::string> indent;
  std::string item_separator = ", ";
  std::string key_separator = ": ";
};

// kInvalidArgument for values that JSON cannot hold.
absl::StatusOr<Text> ToJson(const Value& value, const JsonStyle& style, Work& work);

// Reads a JSON document; its strings get `origin`. kInvalidArgument for bad JSON,
// kResourceExhausted for nesting deeper than kMaxValueDepth.
absl::StatusOr<Value> FromJson(absl::string_view json, Origin origin);

}  // namespace coterie::jinja
