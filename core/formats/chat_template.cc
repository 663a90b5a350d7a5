#include "core/formats/chat_template.h"

#include <ctime>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"

#include "core/base/quote.h"
#include "core/base/status_macros.h"
#include "core/formats/jinja/ast.h"
#include "core/formats/jinja/interpreter.h"
#include "core/formats/jinja/parser.h"
#include "core/formats/jinja/printing.h"

namespace coterie {
namespace {

using jinja::None;
using jinja::Origin;
using jinja::Value;

constexpr size_t kMaxSourceBytes = 256 << 10;
// Work (jinja/work.h) and output for any conversation, and more per byte of it. Real templates
// spend under 10,000 units and 4 per byte, and write little more than the conversation.
constexpr int64_t kBaseWork = 1 << 20;
constexpr int64_t kWorkPerByte = 16;
constexpr size_t kBaseOutputBytes = 4 << 20;
constexpr size_t kOutputPerByte = 8;

constexpr Origin kUntrusted = {.trusted = false, .role = Role::kNone};

absl::Status Annotate(const absl::Status& status, absl::string_view place) {
  return absl::Status(status.code(), absl::StrCat(place, ": ", ShortMessage(status.message())));
}

absl::StatusOr<Value> ReadJson(absl::string_view json, Origin origin, absl::string_view place) {
  absl::StatusOr<Value> value = jinja::FromJson(json, origin);
  if (!value.ok()) return Annotate(value.status(), place);
  return value;
}

absl::StatusOr<Value> MessageValue(const Message& message, size_t index) {
  const Role role = RoleFromName(message.role);
  const Origin origin = {.trusted = false, .role = role};
  auto mapping = std::make_shared<jinja::Mapping>();
  mapping->MarkAsMessage(role);
  COTERIE_RETURN_IF_ERROR(
      mapping->Set(jinja::TextValue("role"), jinja::TextValue(message.role, origin)));
  COTERIE_RETURN_IF_ERROR(
      mapping->Set(jinja::TextValue("content"), jinja::TextValue(message.content, origin)));
  if (!message.fields_json.empty()) {
    const std::string place = absl::StrCat("fields of message ", index);
    COTERIE_ASSIGN_OR_RETURN(const Value fields, ReadJson(message.fields_json, origin, place));
    if (!fields.is(Value::Kind::kMapping)) {
      return absl::InvalidArgumentError(absl::StrCat(place, ": not a JSON object"));
    }
    for (const auto& [key, value] : fields.mapping().entries()) {
      COTERIE_RETURN_IF_ERROR(mapping->Set(key, value));
    }
  }
  return Value(std::shared_ptr<const jinja::Mapping>(std::move(mapping)));
}

absl::StatusOr<std::map<std::string, Value>> MakeGlobals(absl::Span<const Message> messages,
                                                         const RenderOptions& options) {
  std::map<std::string, Value> globals;
  std::vector<Value> values;
  for (size_t i = 0; i < messages.size(); ++i) {
    COTERIE_ASSIGN_OR_RETURN(Value value, MessageValue(messages[i], i));
    values.push_back(std::move(value));
  }
  COTERIE_ASSIGN_OR_RETURN(globals["messages"],
                           jinja::MakeSequence(jinja::Sequence::Form::kList, std::move(values)));
  // transformers passes these two as None where they are not given.
  globals["tools"] = Value(None{});
  globals["documents"] = Value(None{});
  globals["add_generation_prompt"] = Value(options.add_generation_prompt);
  if (!options.bos_token.empty()) globals["bos_token"] = jinja::TextValue(options.bos_token);
  if (!options.eos_token.empty()) globals["eos_token"] = jinja::TextValue(options.eos_token);
  if (!options.tools_json.empty()) {
    COTERIE_ASSIGN_OR_RETURN(globals["tools"], ReadJson(options.tools_json, kUntrusted, "tools"));
  }
  if (!options.variables_json.empty()) {
    COTERIE_ASSIGN_OR_RETURN(const Value variables,
                             ReadJson(options.variables_json, kUntrusted, "variables"));
    if (!variables.is(Value::Kind::kMapping)) {
      return absl::InvalidArgumentError("variables: not a JSON object");
    }
    for (const auto& [key, value] : variables.mapping().entries()) {
      globals[std::string(key.text().bytes())] = value;
    }
  }
  return globals;
}

std::tm LocalTime(const std::optional<absl::CivilSecond>& given) {
  const absl::CivilSecond second =
      given.value_or(absl::ToCivilSecond(absl::Now(), absl::LocalTimeZone()));
  return absl::ToTM(absl::FromCivil(second, absl::UTCTimeZone()), absl::UTCTimeZone());
}

jinja::Limits LimitsFor(absl::Span<const Message> messages, const RenderOptions& options) {
  size_t n_bytes = options.tools_json.size() + options.variables_json.size();
  for (const Message& message : messages) {
    // A message costs work of its own, however short it is.
    n_bytes += message.content.size() + message.fields_json.size() + 1024;
  }
  return {kBaseWork + kWorkPerByte * static_cast<int64_t>(n_bytes),
          kBaseOutputBytes + kOutputPerByte * n_bytes};
}

std::vector<TextPiece> ToPieces(const jinja::Text& text) {
  std::vector<TextPiece> pieces;
  size_t begin = 0;
  for (const jinja::Run& run : text.runs()) {
    pieces.push_back({std::string(text.bytes().substr(begin, run.end - begin)), run.origin.trusted,
                      run.origin.role});
    begin = run.end;
  }
  return pieces;
}

}  // namespace

Role RoleFromName(absl::string_view name) {
  if (name == "system" || name == "developer") return Role::kSystem;
  if (name == "user") return Role::kUser;
  if (name == "assistant" || name == "model") return Role::kAssistant;
  if (name == "tool" || name == "function" || name == "ipython") return Role::kTool;
  return Role::kNone;
}

ChatTemplate::ChatTemplate(absl::string_view source, absl::string_view name)
    : source_(source), name_(name) {}
ChatTemplate::~ChatTemplate() = default;

absl::StatusOr<std::unique_ptr<const ChatTemplate>> ChatTemplate::Parse(absl::string_view source,
                                                                        absl::string_view name) {
  const std::string place = absl::StrCat("chat template ", name);
  if (source.size() > kMaxSourceBytes) {
    return absl::ResourceExhaustedError(absl::StrCat(
        place, ": the source is too long: ", source.size(), " bytes, limit ", kMaxSourceBytes));
  }
  std::unique_ptr<ChatTemplate> result(new ChatTemplate(source, name));
  absl::StatusOr<jinja::Block> block = jinja::ParseTemplate(source);
  if (!block.ok()) return Annotate(block.status(), place);
  result->block_ = *std::move(block);
  return std::unique_ptr<const ChatTemplate>(std::move(result));
}

absl::StatusOr<std::vector<TextPiece>> ChatTemplate::Render(absl::Span<const Message> messages,
                                                            const RenderOptions& options) const {
  const std::string place = absl::StrCat("chat template ", name_);
  const absl::StatusOr<std::map<std::string, Value>> globals = MakeGlobals(messages, options);
  if (!globals.ok()) return Annotate(globals.status(), place);
  jinja::Interpreter interpreter(block_, *globals, LocalTime(options.now),
                                 LimitsFor(messages, options));
  const absl::StatusOr<jinja::Text> text = interpreter.Run();
  if (!text.ok()) return Annotate(text.status(), place);
  return ToPieces(*text);
}

}  // namespace coterie
