#include "core/formats/wordpiece_encoder.h"

#include <algorithm>
#include <string>

#include "core/formats/utf8.h"

namespace coterie {
namespace {

constexpr size_t kMaxWordChars = 100;

// The ideographs that BERT sets apart as words of their own. 0x2B820 to 0x2B91F are missing because
// they are in the code that the models were trained with.
bool IsIdeograph(uint32_t c) {
  return (c >= 0x3400 && c <= 0x4DBF) || (c >= 0x4E00 && c <= 0x9FFF) ||
         (c >= 0xF900 && c <= 0xFAFF) || (c >= 0x20000 && c <= 0x2A6DF) ||
         (c >= 0x2A700 && c <= 0x2B81F) || (c >= 0x2B920 && c <= 0x2CEAF) ||
         (c >= 0x2F800 && c <= 0x2FA1F);
}

// Cleans, spaces ideographs, decomposes, strips accents and lower-cases, in this order.
std::vector<PlacedChar> NormalizeForBert(absl::string_view text) {
  std::vector<PlacedChar> chars;
  chars.reserve(text.size() + 8);
  for (uint32_t i = 0; i < text.size();) {
    const Utf8Char c = DecodeUtf8(text.data() + i);
    const uint8_t bits = UnicodeClass(c.code_point);
    if ((bits & kUnicodeBertRemoved) != 0) {
      // Dropped.
    } else if ((bits & kUnicodeSpace) != 0) {
      chars.push_back({' ', i});
    } else if (IsIdeograph(c.code_point)) {
      chars.push_back({' ', i});
      AppendDecomposed({c.code_point, i}, &chars);
      chars.push_back({' ', i});
    } else {
      AppendDecomposed({c.code_point, i}, &chars);
    }
    i += c.n_bytes;
  }
  SortMarks(&chars);
  size_t size = 0;
  for (const PlacedChar& c : chars) {
    if ((UnicodeClass(c.code_point) & kUnicodeBertStripped) != 0) continue;
    chars[size++] = {LowerCase(c.code_point), c.offset};
  }
  chars.resize(size);
  return chars;
}

}  // namespace

// The bytes of a word behind room for "##", and where each came from.
struct WordPieceEncoder::Word {
  std::string text = "##";
  std::vector<uint32_t> offsets = {0, 0};  // [text.size()]
  size_t n_chars = 0;

  bool empty() const { return n_chars == 0; }
  void Append(PlacedChar c) {
    AppendUtf8(c.code_point, &text);
    offsets.resize(text.size(), c.offset);
    ++n_chars;
  }
  void Clear() {
    text.resize(2);
    offsets.resize(2);
    n_chars = 0;
  }
};

void WordPieceEncoder::EncodeWord(Word* word, const TokenSink& sink) const {
  if (word->empty()) return;
  const size_t n_before = sink.ids->size();
  const size_t end = word->text.size();
  size_t begin = word->n_chars <= kMaxWordChars ? 2 : end + 1;
  while (begin < end) {
    // The bytes before a later piece are done with: "##" goes there.
    const size_t from = begin == 2 ? begin : begin - 2;
    if (from != begin) word->text.replace(from, 2, "##");
    TokenId id = -1;
    size_t piece_end = end;
    for (; piece_end > begin; --piece_end) {
      id = table_.Lookup(absl::string_view(word->text).substr(from, piece_end - from));
      if (id >= 0) break;
    }
    if (id < 0) break;
    sink.Append(id, word->offsets[begin]);
    begin = piece_end;
  }
  if (begin != end) {
    sink.ids->resize(n_before);
    if (sink.starts != nullptr) sink.starts->resize(n_before);
    sink.Append(unknown_, word->offsets[2]);
  }
  word->Clear();
}

void WordPieceEncoder::EncodeNormalized(absl::string_view text, const TokenSink& sink) const {
  Word word;
  for (const PlacedChar& c : NormalizeForBert(text)) {
    if (c.code_point == ' ') {
      EncodeWord(&word, sink);
      continue;
    }
    const bool stands_alone = (UnicodeClass(c.code_point) & kUnicodeBertPunctuation) != 0;
    if (stands_alone) EncodeWord(&word, sink);
    word.Append(c);
    if (stands_alone) EncodeWord(&word, sink);
  }
  EncodeWord(&word, sink);
}

}  // namespace coterie
