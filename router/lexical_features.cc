#include "router/lexical_features.h"

#include <algorithm>
#include <array>
#include <vector>

#include "absl/strings/ascii.h"

namespace coterie {
namespace {

constexpr size_t kMostWords = 3;
constexpr int kShortest = 2, kLongest = 5;  // Characters.

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

uint32_t HashOf(uint8_t kind, absl::string_view text) {
  Hash hash(kind);
  hash.Add(text);
  return hash.value();
}

// Runs of one to kMostWords words that end at each word.
void VisitWords(absl::string_view text, absl::FunctionRef<void(const TextFeature&)> visit) {
  std::array<absl::string_view, kMostWords> last;  // The word at hand first.
  std::string run;
  for (size_t i = 0; i < text.size();) {
    size_t end = i;
    while (end < text.size() && IsWordByte(text[end])) ++end;
    if (end == i) {
      ++i;
      continue;
    }
    std::copy_backward(last.begin(), last.end() - 1, last.end());
    last[0] = text.substr(i, end - i);
    run.assign(last[0].data(), last[0].size());
    visit({HashOf('w', run), FeatureBlock::kWords, run});
    for (size_t n = 1; n < kMostWords && !last[n].empty(); ++n) {
      run.insert(0, " ").insert(0, last[n].data(), last[n].size());
      visit({HashOf('p', run), FeatureBlock::kWords, run});
    }
    i = end;
  }
}

// `text` has single spaces between its pieces, one before and one behind.
void VisitLetters(absl::string_view text, absl::FunctionRef<void(const TextFeature&)> visit) {
  std::vector<uint32_t> starts;
  for (size_t i = 0; i < text.size(); ++i) {
    if ((static_cast<uint8_t>(text[i]) & 0xc0) != 0x80) starts.push_back(static_cast<uint32_t>(i));
  }
  starts.push_back(static_cast<uint32_t>(text.size()));
  const int n = static_cast<int>(starts.size()) - 1;
  size_t piece = 0, piece_end = 0;
  for (int i = 0; i + kShortest <= n; ++i) {
    const size_t first = starts[i] + (text[starts[i]] == ' ' ? 1 : 0);
    while (first >= piece_end) {
      piece = piece_end + 1;
      piece_end = text.find(' ', piece);
    }
    Hash hash('c');
    hash.Add(text.substr(starts[i], starts[i + kShortest - 1] - starts[i]));
    for (int end = i + kShortest; end <= std::min(n, i + kLongest); ++end) {
      hash.Add(text.substr(starts[end - 1], starts[end] - starts[end - 1]));
      visit({hash.value(), FeatureBlock::kLetters, text.substr(piece, piece_end - piece)});
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
  VisitLetters(text, visit);
}

}  // namespace coterie
