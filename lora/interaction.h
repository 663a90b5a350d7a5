#pragma once

// One prompt with its answer, and what the user said of it.

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/span.h"

#include "core/formats/chat_template.h"

namespace coterie {

enum class Verdict : uint8_t { kNone, kAccepted, kRejected, kEdited };
absl::string_view VerdictName(Verdict verdict);  // "none", "accepted", "rejected", "edited"
absl::StatusOr<Verdict> ParseVerdict(absl::string_view name);

struct Feedback {
  Verdict verdict = Verdict::kNone;
  std::string text;    // kEdited: what the answer should have been.
  std::string domain;  // Where the prompt belongs, if the router was wrong; else empty.
};

// How the prompt found its expert.
struct RouteRecord {
  std::string domain;     // The likeliest one; empty where nothing was classified.
  double confidence = 0;  // Its probability.
  std::string reason;
};

struct Interaction {
  std::string id;  // Of the reply.
  absl::Time time;
  std::string conversation;       // A name that belongs to several; may be empty.
  std::vector<Message> messages;  // As the expert read them, its system prompt included.
  std::string reply;
  std::string expert;
  std::string base;     // Content id of the expert's weights.
  std::string adapter;  // Version of its adapter; empty: none.
  RouteRecord route;
  std::string finish_reason;
  Feedback feedback;
  absl::Time feedback_time;  // Of the last change; InfinitePast if there was none.
  // Grows with every change of feedback anywhere in the log; 0 without feedback.
  int64_t change = 0;
};

// The text of the last message of the user: what was asked.
const std::string& AskedText(const std::vector<Message>& messages);
// The system prompt that they begin with; empty: none.
const std::string& SystemPromptOf(absl::Span<const Message> messages);
// What the user would have wanted to read: the edit, else the reply.
const std::string& WantedText(const Interaction& interaction);

// The part that is private, as JSON, and back into `interaction`. kDataLoss for other bytes.
std::string ContentJson(const Interaction& interaction);
absl::Status ReadContentJson(absl::string_view json, Interaction& interaction);

}  // namespace coterie
