#include "core/formats/unicode.h"

#include <algorithm>
#include <utility>

#include "core/formats/utf8.h"

namespace coterie {
namespace {

using unicode_tables::CodePointValue;
using unicode_tables::Composition;
using unicode_tables::Decomposition;

// Hangul arithmetic: Unicode chapter 3.12.
constexpr uint32_t kSyllableBase = 0xAC00, kLeadBase = 0x1100, kVowelBase = 0x1161;
constexpr uint32_t kTailBase = 0x11A7, kVowels = 21, kTails = 28, kSyllables = 11172;
constexpr uint32_t kLeads = 19;

uint32_t ValueOf(absl::Span<const CodePointValue> rows, uint32_t code_point, uint32_t fallback) {
  const auto row =
      std::lower_bound(rows.begin(), rows.end(), code_point,
                       [](const CodePointValue& r, uint32_t c) { return r.code_point < c; });
  return row != rows.end() && row->code_point == code_point ? row->value : fallback;
}

uint32_t CombiningClass(uint32_t code_point) {
  if ((UnicodeClass(code_point) & kUnicodeNormalizes) == 0) return 0;
  return ValueOf(unicode_tables::kCombiningClasses, code_point, 0);
}

// The composite of two code points, or 0.
uint32_t ComposedPair(uint32_t first, uint32_t second) {
  if (first - kLeadBase < kLeads && second - kVowelBase < kVowels) {
    return kSyllableBase + ((first - kLeadBase) * kVowels + (second - kVowelBase)) * kTails;
  }
  const bool is_open_syllable =
      first - kSyllableBase < kSyllables && (first - kSyllableBase) % kTails == 0;
  if (is_open_syllable && second - kTailBase - 1 < kTails - 1) return first + second - kTailBase;
  const auto& rows = unicode_tables::kCompositions;
  const auto row = std::lower_bound(rows.begin(), rows.end(), std::make_pair(first, second),
                                    [](const Composition& r, std::pair<uint32_t, uint32_t> key) {
                                      return std::make_pair(r.first, r.second) < key;
                                    });
  const bool found = row != rows.end() && row->first == first && row->second == second;
  return found ? row->composed : 0;
}

// Appends the NFC of text[begin, end) and the border it stands behind.
void AppendSegment(absl::string_view text, size_t begin, size_t end,
                   std::vector<PlacedChar>* scratch, Normalized* result) {
  scratch->clear();
  for (size_t i = begin; i < end;) {
    const Utf8Char c = DecodeUtf8(text.data() + i);
    AppendDecomposed({c.code_point, 0}, scratch);
    i += c.n_bytes;
  }
  SortMarks(scratch);
  Compose(scratch);
  result->borders.push_back(
      {static_cast<uint32_t>(result->text.size()), static_cast<uint32_t>(begin), false});
  for (const PlacedChar& c : *scratch) AppendUtf8(c.code_point, &result->text);
}

}  // namespace

uint32_t LowerCase(uint32_t code_point) {
  if (code_point < 0x80) return code_point - 'A' < 26 ? code_point + 32 : code_point;
  return ValueOf(unicode_tables::kLowerCase, code_point, code_point);
}

void AppendDecomposed(PlacedChar c, std::vector<PlacedChar>* out) {
  if (c.code_point < 0xC0) {
    out->push_back(c);
    return;
  }
  if (const uint32_t syllable = c.code_point - kSyllableBase; syllable < kSyllables) {
    out->push_back({kLeadBase + syllable / (kVowels * kTails), c.offset});
    out->push_back({kVowelBase + syllable % (kVowels * kTails) / kTails, c.offset});
    if (syllable % kTails != 0) out->push_back({kTailBase + syllable % kTails, c.offset});
    return;
  }
  const auto& rows = unicode_tables::kDecompositions;
  const auto row = std::lower_bound(
      rows.begin(), rows.end(), c.code_point,
      [](const Decomposition& r, uint32_t wanted) { return r.code_point < wanted; });
  if (row == rows.end() || row->code_point != c.code_point) {
    out->push_back(c);
    return;
  }
  for (int i = 0; i < row->length; ++i) {
    out->push_back({unicode_tables::kDecompositionPool[row->offset + i], c.offset});
  }
}

void SortMarks(std::vector<PlacedChar>* text) {
  const auto is_mark = [](const PlacedChar& c) { return CombiningClass(c.code_point) != 0; };
  for (auto begin = text->begin(); begin != text->end();) {
    begin = std::find_if(begin, text->end(), is_mark);
    const auto end = std::find_if_not(begin, text->end(), is_mark);
    std::stable_sort(begin, end, [](const PlacedChar& a, const PlacedChar& b) {
      return CombiningClass(a.code_point) < CombiningClass(b.code_point);
    });
    begin = end;
  }
}

void Compose(std::vector<PlacedChar>* text) {
  constexpr size_t kNone = static_cast<size_t>(-1);
  size_t starter = kNone, size = 0;
  uint32_t last_class = 0;  // Of the character before, unless that is the starter itself.
  for (const PlacedChar& c : *text) {
    const uint32_t combining_class = CombiningClass(c.code_point);
    if (starter != kNone) {
      // Blocked: something between the starter and c has no lower class than c.
      const bool is_adjacent = size == starter + 1;
      if (is_adjacent || last_class < combining_class) {
        const uint32_t composed = ComposedPair((*text)[starter].code_point, c.code_point);
        if (composed != 0) {
          (*text)[starter].code_point = composed;
          continue;
        }
      }
    }
    if (combining_class == 0) starter = size;
    last_class = combining_class;
    (*text)[size++] = c;
  }
  text->resize(size);
}

bool IsSurelyNfc(absl::string_view text) {
  for (size_t i = 0; i < text.size();) {
    // Nothing below U+0300, whose lead byte is 0xCC, changes.
    if (static_cast<unsigned char>(text[i]) < 0xCC) {
      ++i;
      continue;
    }
    const Utf8Char c = DecodeUtf8(text.data() + i);
    if ((UnicodeClass(c.code_point) & kUnicodeNormalizes) != 0) return false;
    i += c.n_bytes;
  }
  return true;
}

bool IsWordCharacter(uint32_t code_point) {
  const auto& ranges = unicode_tables::kWordRanges;
  const auto range = std::lower_bound(
      ranges.begin(), ranges.end(), code_point,
      [](const unicode_tables::CodePointRange& r, uint32_t wanted) { return r.last < wanted; });
  return range != ranges.end() && range->first <= code_point;
}

void Normalized::MapBack(std::vector<uint32_t>* places, size_t first) const {
  auto border = borders.begin();
  for (size_t i = first; i < places->size(); ++i) {
    uint32_t& place = (*places)[i];
    while (border + 1 != borders.end() && (border + 1)->to <= place) ++border;
    place = border->is_verbatim ? border->from + (place - border->to) : border->from;
  }
}

Normalized NormalizeNfc(absl::string_view text) {
  Normalized result;
  result.text.reserve(text.size() + 16);
  std::vector<PlacedChar> scratch;
  const auto normalizes_at = [text](size_t i) {
    return (UnicodeClass(DecodeUtf8(text.data() + i).code_point) & kUnicodeNormalizes) != 0;
  };
  const auto next = [text](size_t i) { return i + DecodeUtf8(text.data() + i).n_bytes; };
  size_t i = 0;
  while (i < text.size()) {
    // A run that stays: every character that is not followed by one that may join it.
    const size_t begin = i;
    size_t last = i;  // Begin of the last character of the run.
    while (i < text.size() && !normalizes_at(i)) {
      last = i;
      i = next(i);
    }
    const size_t run_end = i == text.size() ? i : last;
    if (run_end > begin) {
      result.borders.push_back(
          {static_cast<uint32_t>(result.text.size()), static_cast<uint32_t>(begin), true});
      result.text.append(text.data() + begin, run_end - begin);
    }
    if (i == text.size()) break;
    while (i < text.size() && normalizes_at(i)) i = next(i);
    AppendSegment(text, run_end, i, &scratch, &result);
  }
  return result;
}

}  // namespace coterie
