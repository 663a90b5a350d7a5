#include "core/formats/bpe_encoder.h"

#include <algorithm>
#include <functional>
#include <queue>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"

#include "core/base/status_macros.h"
#include "core/formats/unicode.h"
#include "core/formats/utf8.h"

namespace coterie {
namespace {

// Above this many symbols a heap beats looking at all of them for each merge.
constexpr size_t kMaxShort = 64;

// byte = alphabet[code point]; -1 outside of the alphabet. Code points up to U+0143.
std::array<int16_t, 0x144> MakeAlphabet() {
  std::array<int16_t, 0x144> alphabet;
  alphabet.fill(-1);
  int n_unprintable = 0;
  for (int byte = 0; byte < 256; ++byte) {
    const bool is_printable = (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte != 0xAD);
    alphabet[is_printable ? byte : 0x100 + n_unprintable++] = static_cast<int16_t>(byte);
  }
  return alphabet;
}

// One token of a piece being merged, and what becomes of it and the next.
struct Symbol {
  TokenId id;
  uint32_t start;  // In the piece.
  MergeTable::Merge with_next;
};

}  // namespace

struct BpeEncoder::Scratch {
  std::vector<Symbol> symbols;
  std::vector<uint32_t> previous, next;  // MergeLong: neighbours that are left.
};

bool AppendAlphabetBytes(absl::string_view text, std::string* bytes) {
  static const std::array<int16_t, 0x144> alphabet = MakeAlphabet();
  for (size_t i = 0; i < text.size();) {
    const auto lead = static_cast<unsigned char>(text[i]);
    uint32_t code_point = lead;
    if (lead >= 0x80) {
      if (lead < 0xC2 || lead > 0xC5 || i + 1 == text.size()) return false;
      const auto trail = static_cast<unsigned char>(text[i + 1]);
      if (trail < 0x80 || trail > 0xBF) return false;
      code_point = (lead & 0x1Fu) << 6 | (trail & 0x3Fu);
    }
    if (code_point >= alphabet.size() || alphabet[code_point] < 0) return false;
    bytes->push_back(static_cast<char>(alphabet[code_point]));
    i += lead < 0x80 ? 1 : 2;
  }
  return true;
}

BpeEncoder::BpeEncoder(const TokenTable& table, PretokenizerKind kind, int64_t n_merges)
    : table_(table),
      kind_(kind),
      normalizes_(kind == PretokenizerKind::kQwen2),
      merges_(n_merges),
      wholeness_(new std::atomic<uint8_t>[table.size()]()) {
  for (int byte = 0; byte < 256; ++byte) {
    const char c = static_cast<char>(byte);
    byte_ids_[byte] = table.Lookup(absl::string_view(&c, 1));
  }
}

absl::StatusOr<std::unique_ptr<const BpeEncoder>> BpeEncoder::Create(
    const TokenizerVocabulary& vocabulary, const TokenTable& table) {
  const std::optional<PretokenizerKind> kind = PretokenizerNamed(vocabulary.pre);
  if (!kind.has_value()) {
    return absl::UnimplementedError(
        absl::StrCat("unknown way to cut text before merging: tokenizer.ggml.pre=\"",
                     absl::CHexEscape(vocabulary.pre), "\", file=", vocabulary.origin));
  }
  std::unique_ptr<BpeEncoder> encoder(
      new BpeEncoder(table, *kind, static_cast<int64_t>(vocabulary.merges.size())));
  COTERIE_RETURN_IF_ERROR(encoder->AddMerges(vocabulary));
  // This family takes a piece that is a token without asking the merges.
  if (*kind == PretokenizerKind::kLlama3) {
    for (TokenId id = 0; id < table.size(); ++id) {
      if (vocabulary.type(id) == TokenType::kNormal) encoder->wholeness_[id] = kWhole;
    }
  }
  return encoder;
}

absl::Status BpeEncoder::AddMerges(const TokenizerVocabulary& vocabulary) {
  TokenId guess = 0;  // Merged tokens usually stand in the order of their merges.
  std::string bytes;
  for (size_t rank = 0; rank < vocabulary.merges.size(); ++rank) {
    const absl::string_view merge = vocabulary.merges[rank];
    const auto error = [&](absl::string_view what) {
      return absl::DataLossError(absl::StrCat(what, ": tokenizer.ggml.merges[", rank, "]=\"",
                                              absl::CHexEscape(merge.substr(0, 80)),
                                              "\", file=", vocabulary.origin));
    };
    const size_t space = merge.find(' ');
    if (space == absl::string_view::npos) return error("a merge is not two tokens");
    bytes.clear();
    if (!AppendAlphabetBytes(merge.substr(0, space), &bytes)) return error("bad merge text");
    const size_t n_left = bytes.size();
    if (!AppendAlphabetBytes(merge.substr(space + 1), &bytes)) return error("bad merge text");
    const absl::string_view joined = bytes;
    const TokenId left = table_.Lookup(joined.substr(0, n_left));
    const TokenId right = table_.Lookup(joined.substr(n_left));
    if (left < 0 || right < 0) return error("a merge names a token that is not there");
    const bool is_next = guess + 1 < table_.size() && table_.Bytes(guess + 1) == joined &&
                         vocabulary.type(guess + 1) == TokenType::kNormal;
    const TokenId merged = is_next ? guess + 1 : table_.Lookup(joined);
    if (merged < 0) return error("a merge makes no token, or a control token");
    guess = merged;
    const auto insertion = merges_.Add(left, right, {static_cast<uint32_t>(rank), merged});
    if (insertion == TokenTable::Insertion::kDuplicate) return error("a merge stands twice");
    if (insertion != TokenTable::Insertion::kDone) return error("merges collide in the table");
  }
  return absl::OkStatus();
}

void BpeEncoder::Encode(absl::string_view text, const TokenSink& sink) const {
  if (!normalizes_ || IsSurelyNfc(text)) {
    EncodeNormalized(text, sink);
    return;
  }
  const Normalized normalized = NormalizeNfc(text);
  const size_t first = sink.starts == nullptr ? 0 : sink.starts->size();
  EncodeNormalized(normalized.text, sink);
  if (sink.starts == nullptr) return;
  // From places in the normalised text back to places in the text.
  auto border = normalized.borders.begin();
  for (size_t i = first; i < sink.starts->size(); ++i) {
    uint32_t& start = (*sink.starts)[i];
    while (border + 1 != normalized.borders.end() && (border + 1)->to <= start) ++border;
    start = border->is_verbatim ? border->from + (start - border->to) : border->from;
  }
}

void BpeEncoder::EncodeNormalized(absl::string_view text, const TokenSink& sink) const {
  Scratch scratch;
  Pretokenizer pretokenizer(kind_, text);
  for (absl::string_view piece = pretokenizer.Next(); !piece.empty(); piece = pretokenizer.Next()) {
    const auto begin = static_cast<uint32_t>(piece.data() - text.data());
    const TokenId id = table_.Lookup(piece);
    if (id >= 0 && IsWhole(id, piece, &scratch)) {
      sink.Append(id, begin);
      continue;
    }
    MergePiece(piece, &scratch);
    for (const Symbol& symbol : scratch.symbols) sink.Append(symbol.id, begin + symbol.start);
  }
}

bool BpeEncoder::IsWhole(TokenId id, absl::string_view piece, Scratch* scratch) const {
  std::atomic<uint8_t>& known = wholeness_[id];
  uint8_t wholeness = known.load(std::memory_order_relaxed);
  if (wholeness == kUntried) {
    MergePiece(piece, scratch);
    const bool is_whole = scratch->symbols.size() == 1 && scratch->symbols[0].id == id;
    wholeness = is_whole ? kWhole : kDivided;
    known.store(wholeness, std::memory_order_relaxed);
  }
  return wholeness == kWhole;
}

void BpeEncoder::MergePiece(absl::string_view piece, Scratch* scratch) const {
  std::vector<Symbol>& symbols = scratch->symbols;
  symbols.clear();
  for (size_t i = 0; i < piece.size(); ++i) {
    const TokenId id = byte_ids_[static_cast<unsigned char>(piece[i])];
    if (id < 0) continue;
    if (!symbols.empty()) symbols.back().with_next = merges_.Find(symbols.back().id, id);
    symbols.push_back({id, static_cast<uint32_t>(i), {MergeTable::kNever, -1}});
  }
  if (symbols.size() <= kMaxShort) {
    MergeShort(scratch);
  } else {
    MergeLong(scratch);
  }
}

void BpeEncoder::MergeShort(Scratch* scratch) const {
  std::vector<Symbol>& symbols = scratch->symbols;
  while (symbols.size() > 1) {
    size_t best = 0;
    for (size_t i = 1; i < symbols.size(); ++i) {
      if (symbols[i].with_next.rank < symbols[best].with_next.rank) best = i;
    }
    if (symbols[best].with_next.rank == MergeTable::kNever) return;
    symbols[best].id = symbols[best].with_next.merged;
    symbols.erase(symbols.begin() + best + 1);
    const bool has_next = best + 1 < symbols.size();
    symbols[best].with_next = has_next ? merges_.Find(symbols[best].id, symbols[best + 1].id)
                                       : MergeTable::Merge{MergeTable::kNever, -1};
    if (best > 0) {
      symbols[best - 1].with_next = merges_.Find(symbols[best - 1].id, symbols[best].id);
    }
  }
}

void BpeEncoder::MergeLong(Scratch* scratch) const {
  std::vector<Symbol>& symbols = scratch->symbols;
  std::vector<uint32_t>& previous = scratch->previous;
  std::vector<uint32_t>& next = scratch->next;
  const auto n = static_cast<uint32_t>(symbols.size());
  previous.resize(n);
  next.resize(n);
  // Rank above, position below: the least is the earliest of the strongest. Entries whose rank is
  // no longer the symbol's are stale.
  std::vector<uint64_t> entries;
  entries.reserve(n);
  for (uint32_t i = 0; i < n; ++i) {
    previous[i] = i - 1;
    next[i] = i + 1;
    const uint32_t rank = symbols[i].with_next.rank;
    if (rank != MergeTable::kNever) entries.push_back(static_cast<uint64_t>(rank) << 32 | i);
  }
  std::priority_queue<uint64_t, std::vector<uint64_t>, std::greater<>> queue(std::greater<>(),
                                                                             std::move(entries));
  const auto update = [&](uint32_t i) {
    symbols[i].with_next = next[i] < n ? merges_.Find(symbols[i].id, symbols[next[i]].id)
                                       : MergeTable::Merge{MergeTable::kNever, -1};
    const uint32_t rank = symbols[i].with_next.rank;
    if (rank != MergeTable::kNever) queue.push(static_cast<uint64_t>(rank) << 32 | i);
  };
  while (!queue.empty()) {
    const uint64_t entry = queue.top();
    queue.pop();
    const auto i = static_cast<uint32_t>(entry);
    if (symbols[i].with_next.rank != entry >> 32) continue;
    const uint32_t gone = next[i];
    symbols[i].id = symbols[i].with_next.merged;
    symbols[gone] = {-1, 0, {MergeTable::kNever, -1}};
    next[i] = next[gone];
    if (next[i] < n) previous[next[i]] = i;
    update(i);
    if (i > 0) update(previous[i]);
  }
  symbols.erase(std::remove_if(symbols.begin(), symbols.end(),
                               [](const Symbol& symbol) { return symbol.id < 0; }),
                symbols.end());
}

int64_t BpeEncoder::memory_bytes() const { return merges_.memory_bytes() + table_.size(); }

}  // namespace coterie
