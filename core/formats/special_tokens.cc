#include "core/formats/special_tokens.h"

namespace coterie {

int32_t SpecialTokens::Child(int32_t node, uint8_t byte) const {
  int32_t child = nodes_[node].first_child;
  while (child >= 0 && nodes_[child].byte != byte) child = nodes_[child].next_sibling;
  return child;
}

bool SpecialTokens::Add(absl::string_view text, TokenId id) {
  const auto append = [this](char c) {
    nodes_.push_back({-1, -1, -1, static_cast<uint8_t>(c)});
    return static_cast<int32_t>(nodes_.size()) - 1;
  };
  int32_t& root = roots_[static_cast<uint8_t>(text[0])];
  if (root < 0) root = append(text[0]);
  int32_t node = root;
  for (const char c : text.substr(1)) {
    int32_t child = Child(node, static_cast<uint8_t>(c));
    if (child < 0) {
      child = append(c);
      nodes_[child].next_sibling = nodes_[node].first_child;
      nodes_[node].first_child = child;
    }
    node = child;
  }
  if (nodes_[node].id >= 0) return false;
  nodes_[node].id = id;
  return true;
}

std::optional<SpecialTokens::Match> SpecialTokens::FindNext(absl::string_view text,
                                                            size_t from) const {
  for (size_t begin = from; begin < text.size(); ++begin) {
    int32_t node = roots_[static_cast<uint8_t>(text[begin])];
    std::optional<Match> longest;
    for (size_t end = begin + 1; node >= 0; ++end) {
      if (nodes_[node].id >= 0) longest = Match{begin, end, nodes_[node].id};
      if (end == text.size()) break;
      node = Child(node, static_cast<uint8_t>(text[end]));
    }
    if (longest.has_value()) return longest;
  }
  return std::nullopt;
}

TokenId SpecialTokens::Lookup(absl::string_view text) const {
  if (text.empty()) return -1;
  int32_t node = roots_[static_cast<uint8_t>(text[0])];
  for (size_t i = 1; i < text.size() && node >= 0; ++i) {
    node = Child(node, static_cast<uint8_t>(text[i]));
  }
  return node < 0 ? -1 : nodes_[node].id;
}

}  // namespace coterie
