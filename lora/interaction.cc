#include "lora/interaction.h"

#include <array>

#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"

#include "core/base/exception_guard.h"
#include "core/base/quote.h"

namespace coterie {
namespace {

using Json = nlohmann::json;

constexpr std::array<absl::string_view, 4> kVerdictNames = {"none", "accepted", "rejected",
                                                            "edited"};

Json MessageJson(const Message& message) {
  Json json = {{"role", message.role}, {"content", message.content}};
  if (!message.fields_json.empty()) json["fields"] = message.fields_json;
  return json;
}

}  // namespace

absl::string_view VerdictName(Verdict verdict) {
  return kVerdictNames[static_cast<size_t>(verdict)];
}

absl::StatusOr<Verdict> ParseVerdict(absl::string_view name) {
  for (size_t i = 0; i < kVerdictNames.size(); ++i) {
    if (kVerdictNames[i] == name) return static_cast<Verdict>(i);
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "feedback is \"accepted\", \"rejected\", \"edited\" or \"none\", not ", Quote(name)));
}

const std::string& AskedText(const std::vector<Message>& messages) {
  static const std::string kEmpty;
  for (auto it = messages.rbegin(); it != messages.rend(); ++it) {
    if (it->role == "user") return it->content;
  }
  return messages.empty() ? kEmpty : messages.back().content;
}

const std::string& SystemPromptOf(absl::Span<const Message> messages) {
  static const std::string kNone;
  return !messages.empty() && messages.front().role == "system" ? messages.front().content : kNone;
}

const std::string& WantedText(const Interaction& interaction) {
  return interaction.feedback.verdict == Verdict::kEdited ? interaction.feedback.text
                                                          : interaction.reply;
}

std::string ContentJson(const Interaction& interaction) {
  Json messages = Json::array();
  for (const Message& message : interaction.messages) messages.push_back(MessageJson(message));
  const Json json = {{"conversation", interaction.conversation},
                     {"messages", messages},
                     {"reply", interaction.reply},
                     {"domain", interaction.route.domain},
                     {"confidence", interaction.route.confidence},
                     {"reason", interaction.route.reason},
                     {"finish_reason", interaction.finish_reason}};
  // A reply that was cancelled may end within a character.
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

absl::Status ReadContentJson(absl::string_view json, Interaction& interaction) {
  const absl::Status status = GuardExceptions([&] {
    const Json read = Json::parse(json.begin(), json.end());
    for (const Json& message : read.at("messages")) {
      interaction.messages.push_back(
          {message.at("role"), message.at("content"), message.value("fields", std::string())});
    }
    interaction.conversation = read.at("conversation");
    interaction.reply = read.at("reply");
    interaction.route.domain = read.at("domain");
    interaction.route.confidence = read.at("confidence");
    interaction.route.reason = read.at("reason");
    interaction.finish_reason = read.at("finish_reason");
  });
  if (status.ok() || absl::IsResourceExhausted(status)) return status;
  return absl::DataLossError(absl::StrCat("an interaction is damaged: id=", interaction.id, ": ",
                                          ShortMessage(status.message())));
}

}  // namespace coterie
