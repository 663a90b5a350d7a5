#include "core/formats/jinja/printing.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

#include "core/base/status_macros.h"
#include "core/formats/jinja/characters.h"

namespace coterie::jinja {
namespace {

using Kind = Value::Kind;

std::string Hex(const char* prefix, uint32_t code, int n_digits) {
  char buffer[16];
  std::snprintf(buffer, sizeof(buffer), "%s%0*x", prefix, n_digits, code);
  return buffer;
}

// Calls append(piece, origin) for each character of `text`, whose replacement is escape(code), or
// the character itself where that is empty. Runs of unescaped characters are appended at once.
template <typename Escape>
void AppendEscaped(const Text& text, const Escape& escape, Text* out) {
  size_t kept_from = 0;
  for (size_t i = 0; i < text.size();) {
    const Character character = CharacterAt(text.bytes(), i);
    const std::string replacement = escape(character.code);
    if (!replacement.empty()) {
      out->AppendRange(text, kept_from, i);
      out->Append(replacement, text.OriginAt(i));
      kept_from = i + character.n_bytes;
    }
    i += character.n_bytes;
  }
  out->AppendRange(text, kept_from, text.size());
}

std::string ReprEscape(uint32_t code, char quote) {
  if (code == static_cast<uint32_t>(quote)) return std::string("\\") + quote;
  if (code == '\\') return "\\\\";
  if (code == '\n') return "\\n";
  if (code == '\r') return "\\r";
  if (code == '\t') return "\\t";
  if (IsPrintable(code)) return "";
  if (code < 0x100) return Hex("\\x", code, 2);
  return code < 0x10000 ? Hex("\\u", code, 4) : Hex("\\U", code, 8);
}

void AppendStringRepr(const Text& text, Text* out) {
  const bool has_single = text.bytes().find('\'') != absl::string_view::npos;
  const bool has_double = text.bytes().find('"') != absl::string_view::npos;
  const char quote = has_single && !has_double ? '"' : '\'';
  if (text.markup()) out->Append("Markup(", {});
  out->Append(absl::string_view(&quote, 1), {});
  AppendEscaped(
      text, [quote](uint32_t code) { return ReprEscape(code, quote); }, out);
  out->Append(absl::string_view(&quote, 1), {});
  if (text.markup()) out->Append(")", {});
}

absl::Status AppendRepr(const Value& value, Text* out);

absl::Status AppendSequenceRepr(const Sequence& sequence, Text* out) {
  const bool is_list = sequence.form == Sequence::Form::kList;
  out->Append(is_list ? "[" : "(", {});
  for (size_t i = 0; i < sequence.items.size(); ++i) {
    if (i > 0) out->Append(", ", {});
    COTERIE_RETURN_IF_ERROR(AppendRepr(sequence.items[i], out));
  }
  if (!is_list && sequence.items.size() == 1) out->Append(",", {});
  out->Append(is_list ? "]" : ")", {});
  return absl::OkStatus();
}

absl::Status AppendMappingRepr(const Mapping& mapping, Text* out) {
  out->Append("{", {});
  bool first = true;
  for (const auto& [key, value] : mapping.entries()) {
    if (!std::exchange(first, false)) out->Append(", ", {});
    COTERIE_RETURN_IF_ERROR(AppendRepr(key, out));
    out->Append(": ", {});
    COTERIE_RETURN_IF_ERROR(AppendRepr(value, out));
  }
  out->Append("}", {});
  return absl::OkStatus();
}

absl::Status AppendRepr(const Value& value, Text* out) {
  switch (value.kind()) {
    case Kind::kUndefined:
      out->Append("Undefined", {});
      return absl::OkStatus();
    case Kind::kNone:
      out->Append("None", {});
      return absl::OkStatus();
    case Kind::kBool:
      out->Append(value.boolean() ? "True" : "False", {});
      return absl::OkStatus();
    case Kind::kInt:
      out->Append(absl::StrCat(value.integer()), {});
      return absl::OkStatus();
    case Kind::kFloat:
      out->Append(FormatReal(value.real()), {});
      return absl::OkStatus();
    case Kind::kString:
      AppendStringRepr(value.text(), out);
      return absl::OkStatus();
    case Kind::kSequence:
      if (!value.sequence().is_indexable()) break;
      return AppendSequenceRepr(value.sequence(), out);
    case Kind::kMapping:
      return AppendMappingRepr(value.mapping(), out);
    case Kind::kNamespace:
    case Kind::kCallable:
    case Kind::kLoop:
      break;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("a value of type '", value.TypeName(), "' has no text of its own"));
}

class JsonWriter {
 public:
  explicit JsonWriter(const JsonStyle& style) : style_(style) {}

  absl::Status Write(const Value& value, int level);
  Text Finish() && { return std::move(out_); }

 private:
  absl::Status WriteSequence(const Sequence& sequence, int level);
  absl::Status WriteMapping(const Mapping& mapping, int level);
  absl::Status WriteKey(const Value& key);
  void WriteString(const Text& text);
  void BreakLine(int level);
  static std::string RealText(double value);

  const JsonStyle& style_;
  Text out_;
};

void JsonWriter::BreakLine(int level) {
  if (!style_.indent.has_value()) return;
  std::string line = "\n";
  for (int i = 0; i < level; ++i) line += *style_.indent;
  out_.Append(line, {});
}

std::string JsonWriter::RealText(double value) {
  if (std::isnan(value)) return "NaN";
  if (std::isinf(value)) return value > 0 ? "Infinity" : "-Infinity";
  return FormatReal(value);
}

void JsonWriter::WriteString(const Text& text) {
  const bool ascii = style_.ensure_ascii;
  out_.Append("\"", {});
  AppendEscaped(
      text,
      [ascii](uint32_t code) -> std::string {
        switch (code) {
          case '"':
            return "\\\"";
          case '\\':
            return "\\\\";
          case '\n':
            return "\\n";
          case '\r':
            return "\\r";
          case '\t':
            return "\\t";
          case '\b':
            return "\\b";
          case '\f':
            return "\\f";
        }
        if (code < 0x20 || (ascii && code >= 0x7F && code < 0x10000)) {
          return Hex("\\u", code, 4);
        }
        if (!ascii || code < 0x10000) return "";
        return Hex("\\u", 0xD800 + ((code - 0x10000) >> 10), 4) +
               Hex("\\u", 0xDC00 + ((code - 0x10000) & 0x3FF), 4);
      },
      &out_);
  out_.Append("\"", {});
}

absl::Status JsonWriter::WriteSequence(const Sequence& sequence, int level) {
  if (sequence.items.empty()) return out_.Append("[]", {}), absl::OkStatus();
  out_.Append("[", {});
  for (size_t i = 0; i < sequence.items.size(); ++i) {
    if (i > 0) out_.Append(style_.item_separator, {});
    BreakLine(level + 1);
    COTERIE_RETURN_IF_ERROR(Write(sequence.items[i], level + 1));
  }
  BreakLine(level);
  out_.Append("]", {});
  return absl::OkStatus();
}

absl::Status JsonWriter::WriteKey(const Value& key) {
  if (key.is_string()) return WriteString(key.text()), absl::OkStatus();
  out_.Append("\"", {});
  COTERIE_RETURN_IF_ERROR(Write(key, 0));
  out_.Append("\"", {});
  return absl::OkStatus();
}

absl::Status JsonWriter::WriteMapping(const Mapping& mapping, int level) {
  if (mapping.entries().empty()) return out_.Append("{}", {}), absl::OkStatus();
  std::vector<const std::pair<Value, Value>*> entries;
  for (const auto& entry : mapping.entries()) entries.push_back(&entry);
  if (style_.sort_keys) {
    for (const auto* entry : entries) {
      COTERIE_RETURN_IF_ERROR(Less(entry->first, entries[0]->first).status());
    }
    std::stable_sort(entries.begin(), entries.end(),
                     [](const auto* a, const auto* b) { return *Less(a->first, b->first); });
  }
  out_.Append("{", {});
  for (size_t i = 0; i < entries.size(); ++i) {
    if (i > 0) out_.Append(style_.item_separator, {});
    BreakLine(level + 1);
    COTERIE_RETURN_IF_ERROR(WriteKey(entries[i]->first));
    out_.Append(style_.key_separator, {});
    COTERIE_RETURN_IF_ERROR(Write(entries[i]->second, level + 1));
  }
  BreakLine(level);
  out_.Append("}", {});
  return absl::OkStatus();
}

absl::Status JsonWriter::Write(const Value& value, int level) {
  switch (value.kind()) {
    case Kind::kNone:
      return out_.Append("null", {}), absl::OkStatus();
    case Kind::kBool:
      return out_.Append(value.boolean() ? "true" : "false", {}), absl::OkStatus();
    case Kind::kInt:
      return out_.Append(absl::StrCat(value.integer()), {}), absl::OkStatus();
    case Kind::kFloat:
      return out_.Append(RealText(value.real()), {}), absl::OkStatus();
    case Kind::kString:
      return WriteString(value.text()), absl::OkStatus();
    case Kind::kSequence:
      if (!value.sequence().is_indexable()) break;
      return WriteSequence(value.sequence(), level);
    case Kind::kMapping:
      return WriteMapping(value.mapping(), level);
    default:
      break;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("Object of type ", value.TypeName(), " is not JSON serializable"));
}

}  // namespace

std::string FormatReal(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  char buffer[32];
  const auto end =
      std::to_chars(buffer, buffer + sizeof(buffer), value, std::chars_format::scientific).ptr;
  const std::string scientific(buffer, end);
  const size_t e = scientific.find('e');
  const int exponent = std::stoi(scientific.substr(e + 1));
  if (exponent < -4 || exponent >= 16) return scientific;
  // Lay the digits out around the decimal point.
  const std::string sign = scientific[0] == '-' ? "-" : "";
  std::string digits;
  for (char c : scientific.substr(0, e)) {
    if (c >= '0' && c <= '9') digits += c;
  }
  if (exponent < 0) return sign + "0." + std::string(-exponent - 1, '0') + digits;
  const size_t n_whole = static_cast<size_t>(exponent) + 1;
  if (digits.size() <= n_whole) {
    return sign + digits + std::string(n_whole - digits.size(), '0') + ".0";
  }
  return sign + digits.substr(0, n_whole) + "." + digits.substr(n_whole);
}

absl::StatusOr<Text> ToText(const Value& value, Work& work) {
  if (value.is_undefined()) return Text();
  if (value.is_string()) {
    COTERIE_RETURN_IF_ERROR(work.ChargeBytes(value.text().cost_bytes()));
    return value.text();
  }
  return Represent(value, work);
}

absl::StatusOr<Text> Represent(const Value& value, Work& work) {
  COTERIE_RETURN_IF_ERROR(work.Charge(value.walk_cost()));
  Text out;
  COTERIE_RETURN_IF_ERROR(AppendRepr(value, &out));
  return out;
}

absl::StatusOr<Text> ToJson(const Value& value, const JsonStyle& style, Work& work) {
  // Indentation repeats at every element, up to the deepest level.
  const int64_t indent_bytes = style.indent.has_value() ? style.indent->size() + 1 : 0;
  const int64_t separators = style.item_separator.size() + style.key_separator.size();
  const int64_t per_element = (indent_bytes * value.depth() + separators) / 16 + 1;
  if (value.walk_cost() > INT64_MAX / 4 / per_element) return work.Charge(INT64_MAX);
  COTERIE_RETURN_IF_ERROR(work.Charge(value.walk_cost() * per_element));
  JsonWriter writer(style);
  COTERIE_RETURN_IF_ERROR(writer.Write(value, 0));
  return std::move(writer).Finish();
}

}  // namespace coterie::jinja
