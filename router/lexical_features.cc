#include "router/lexical_features.h"

#include <algorithm>
#include <vector>

#include "absl/strings/ascii.h"

namespace coterie {
namespace {

constexpr int kShortest = 3, kLongest = 5;

// 64-bit FNV-1a (Fowler, Noll, Vo), folded to 32 bits at the end; the kind is hashed first.
class Hash {
 public:
  explicit Hash(uint8_t kind) { Add(kind); }
  void Add(uint8_t byte) { state_ = (state_ ^ byte) * 0x100000001b3ull; }
  void Add(absl::string_view text) {
    for (const char c : text) Add(static_cast<uint8_t>(c));
  }
  uint32_t value() const { return static_cast<uint32_t>(state_ ^ (state_ >> 32)); }

 private:
  uint64_t state_ = 0xcbf29ce484222325ull;
};

bool IsWordByte(char c) {
  return absl::ascii_isalnum(c) || c == '_' || (static_cast<uint8_t>(c) & 0x80) != 0;
}

uint32_t WordHash(absl::string_view word) {
  Hash hash('w');
  hash.Add(word);
  return hash.value();
}

void VisitWords(absl::string_view text, absl::FunctionRef<void(const TextFeature&)> visit) {
  absl::string_view previous;
  std::string pair;
  for (size_t i = 0; i < text.size();) {
    size_t end = i;
    while (end < text.size() && IsWordByte(text[end])) ++end;
    if (end == i) {
      ++i;
      continue;
    }
    const absl::string_view word = text.substr(i, end - i);
    visit({WordHash(word), FeatureBlock::kWords, word});
    if (!previous.empty()) {
      pair.assign(previous.data(), previous.size());
      pair += ' ';
      pair.append(word.data(), word.size());
      Hash hash('p');
      hash.Add(pair);
      visit({hash.value(), FeatureBlock::kWords, pair});
    }
    previous = word;
    i = end;
  }
}

// `piece` has a space before and behind; the text of its features goes without them.
void VisitLetters(absl::string_view piece, std::vector<uint32_t>& starts,
                  absl::FunctionRef<void(const TextFeature&)> visit) {
  starts.clear();
  for (size_t i = 0; i < piece.size(); ++i) {
    if ((static_cast<uint8_t>(piece[i]) & 0xc0) != 0x80) starts.push_back(static_cast<uint32_t>(i));
  }
  starts.push_back(static_cast<uint32_t>(piece.size()));
  const int n = static_cast<int>(starts.size()) - 1;
  const absl::string_view text = piece.substr(1, piece.size() - 2);
  for (int i = 0; i + kShortest <= n; ++i) {
    Hash hash('c');
    hash.Add(piece.substr(starts[i], starts[i + kShortest - 1] - starts[i]));
    for (int end = i + kShortest; end <= std::min(n, i + kLongest); ++end) {
      hash.Add(piece.substr(starts[end - 1], starts[end] - starts[end - 1]));
      visit({hash.value(), FeatureBlock::kLetters, text});
    }
  }
}

}  // namespace

void ForEachFeature(absl::string_view cut, absl::FunctionRef<void(const TextFeature&)> visit) {
  // CutPrompt leaves single spaces between pieces: one more at each end pads the outer ones.
  std::string text = " ";
  text += absl::AsciiStrToLower(cut);
  text += ' ';
  VisitWords(text, visit);
  std::vector<uint32_t> starts;
  for (size_t begin = 0; begin + 1 < text.size();) {
    const size_t end = text.find(' ', begin + 1);
    if (end > begin + 1) {
      VisitLetters(absl::string_view(text).substr(begin, end - begin + 1), starts, visit);
    }
    begin = end;
  }
}

}  // namespace coterie
