#include "router/prompt_text.h"

#include <algorithm>
#include <array>
#include <vector>

#include "core/formats/utf8.h"

namespace coterie {
namespace {

bool IsSpace(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

// Takes the next word off the front of text; empty at the end.
absl::string_view NextWord(absl::string_view& text) {
  size_t begin = 0;
  while (begin < text.size() && IsSpace(text[begin])) ++begin;
  size_t end = begin;
  while (end < text.size() && !IsSpace(text[end])) ++end;
  const absl::string_view word = text.substr(begin, end - begin);
  text.remove_prefix(end);
  return word;
}

// Words joined by spaces up to a number of bytes, so that one endless word costs no memory.
class Joined {
 public:
  void Append(absl::string_view word) {
    if (n_bytes_ > 0) Put(" ");
    Put(word);
  }
  std::string Result() const {
    if (n_bytes_ <= kHeadBytes + kTailBytes) return head_ + tail_;
    return head_ + " " + tail_.substr(tail_.size() - kTailBytes);
  }

 private:
  void Put(absl::string_view bytes) {
    n_bytes_ += static_cast<int64_t>(bytes.size());
    const size_t to_head = std::min(bytes.size(), kHeadBytes - head_.size());
    head_.append(bytes.data(), to_head);
    bytes.remove_prefix(to_head);
    if (bytes.size() > kTailBytes) bytes.remove_prefix(bytes.size() - kTailBytes);
    tail_.append(bytes.data(), bytes.size());
    if (tail_.size() > 4 * kTailBytes) tail_.erase(0, tail_.size() - kTailBytes);
  }

  std::string head_;
  std::string tail_;
  int64_t n_bytes_ = 0;
};

}  // namespace

std::string ValidUtf8(absl::string_view text) {
  std::string valid;
  valid.reserve(text.size());
  while (!text.empty()) {
    const size_t n_valid = FindInvalidUtf8(text);
    valid.append(text.data(), n_valid);
    text.remove_prefix(n_valid);
    if (text.empty()) break;
    bool is_valid = false, is_cut = false;
    text.remove_prefix(ScanUtf8(text, &is_valid, &is_cut).n_bytes);
  }
  return valid;
}

std::string CutPrompt(absl::string_view prompt) {
  Joined joined;
  std::array<absl::string_view, kTailWords> tail;  // A ring of the latest words.
  int64_t n_words = 0;
  for (absl::string_view word = NextWord(prompt); !word.empty(); word = NextWord(prompt)) {
    if (n_words < kHeadWords) {
      joined.Append(word);
    } else {
      tail[(n_words - kHeadWords) % kTailWords] = word;
    }
    ++n_words;
  }
  const int64_t n_after = n_words - kHeadWords;
  for (int64_t i = std::max<int64_t>(0, n_after - kTailWords); i < n_after; ++i) {
    joined.Append(tail[i % kTailWords]);
  }
  return ValidUtf8(joined.Result());
}

}  // namespace coterie
