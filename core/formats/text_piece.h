#pragma once

#include <cstdint>
#include <string>

namespace coterie {

// Who speaks in a piece of a rendered conversation.
enum class Role : uint8_t { kNone, kSystem, kUser, kAssistant, kTool };

// A run of text with its origin. Only trusted text (written by a chat template, never by a user, a
// document or a model) may become special tokens.
struct TextPiece {
  std::string text;
  bool trusted = false;
  Role role = Role::kNone;
};

}  // namespace coterie
