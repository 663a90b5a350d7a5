#pragma once

// Chat templates: the small programs in model files that lay a conversation out as the model was
// trained to read it. They are written in Jinja; this is an interpreter of our own for the part of
// Jinja that templates use, byte-equal to Jinja 3.1.6 under the settings of Hugging Face
// transformers (trim_blocks, lstrip_blocks, loop controls, the immutable sandbox).

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/civil_time.h"
#include "absl/types/span.h"

#include "core/formats/text_piece.h"

namespace coterie {

// One turn of a conversation.
struct Message {
  std::string role;  // "system", "user", "assistant", "tool", or what the template knows.
  std::string content;
  // Further fields as a JSON object, such as {"tool_calls": [...], "name": "..."}; a field of the
  // same name replaces role or content (null, or a list of parts). Empty: none.
  std::string fields_json;
};

struct RenderOptions {
  bool add_generation_prompt = true;
  // Texts of the model's special tokens; empty leaves the variable undefined. They are trusted.
  std::string bos_token;
  std::string eos_token;
  // JSON array of function declarations; empty: none.
  std::string tools_json;
  // JSON object of further variables, such as {"enable_thinking": false}. Their text is untrusted.
  std::string variables_json;
  // What strftime_now tells; now, in local time, if not given.
  std::optional<absl::CivilSecond> now;
};

// The role that a message's role name stands for; kNone for names that are not widely used.
Role RoleFromName(absl::string_view name);

namespace jinja {
struct Statement;
}

// A parsed template. Const after construction, thread-safe.
//
// A template is hostile input. It reaches only the values given to it, and it is bounded: source
// 256 KiB, nesting as in jinja/work.h, and work proportional to the size of the conversation, which
// bounds time and memory of a rendering.
class ChatTemplate {
 public:
  // `name` stands in error messages. kDataLoss for syntax errors, kUnimplemented for constructs of
  // Jinja beyond the subset, kResourceExhausted for sources that are too long or nested too deep;
  // each with the line and the construct.
  static absl::StatusOr<std::unique_ptr<const ChatTemplate>> Parse(absl::string_view source,
                                                                   absl::string_view name);
  ~ChatTemplate();
  ChatTemplate(const ChatTemplate&) = delete;
  ChatTemplate& operator=(const ChatTemplate&) = delete;

  // The conversation as pieces; their texts joined are what transformers would render. Neighbours
  // differ in trust or role, and none is empty. Text that stems from a message, tool or variable is
  // untrusted wherever the template moved it; text of the template is trusted. Roles: see
  // jinja/interpreter.h.
  //
  // kInvalidArgument with the template's own words where it calls raise_exception, and for bad JSON
  // in messages or options or use of a missing value; kUnimplemented naming a construct that only
  // shows at run time; kResourceExhausted past a limit.
  absl::StatusOr<std::vector<TextPiece>> Render(absl::Span<const Message> messages,
                                                const RenderOptions& options) const;

  const std::string& source() const { return source_; }
  const std::string& name() const { return name_; }

 private:
  ChatTemplate(absl::string_view source, absl::string_view name);

  std::string source_;
  std::string name_;
  std::vector<std::unique_ptr<jinja::Statement>> block_;
};

}  // namespace coterie
