#include "core/formats/tokenizer.h"

#include <algorithm>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

#include "core/base/status_macros.h"
#include "core/formats/utf8.h"

namespace coterie {
namespace {

constexpr size_t kMaxTextBytes = (size_t{1} << 31) - 1;

// `where` names the piece, or is empty for a text of one.
absl::Status CheckText(absl::string_view text, absl::string_view where) {
  if (text.size() > kMaxTextBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("text is too long for one call, encode it in parts: ", where,
                     "bytes=", text.size(), ", limit=", kMaxTextBytes));
  }
  const size_t invalid = FindInvalidUtf8(text);
  if (invalid == text.size()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("text is not UTF-8, convert it or replace what is broken by U+FFFD: ", where,
                   "first bad byte=", invalid));
}

// Adds a run, or makes the last one longer.
void ExtendRuns(size_t end, bool trusted, std::vector<TrustRun>* runs) {
  if (runs->empty() || runs->back().trusted != trusted) runs->push_back({0, trusted});
  runs->back().end = end;
}

// The runs of text[begin, end).
std::vector<TrustRun> RunsOf(size_t begin, size_t end, absl::Span<const TrustRun> runs) {
  std::vector<TrustRun> part;
  auto run = std::upper_bound(runs.begin(), runs.end(), begin,
                              [](size_t at, const TrustRun& r) { return at < r.end; });
  for (size_t at = begin; at < end; ++run) {
    at = std::min(run->end, end);
    ExtendRuns(at - begin, run->trusted, &part);
  }
  return part;
}

// What `runs` of a text are in its normalised form: a character is trusted if all was that it is
// made of.
std::vector<TrustRun> RunsAfter(const Normalized& normalized, absl::Span<const TrustRun> runs) {
  std::vector<TrustRun> after;
  const auto& borders = normalized.borders;
  for (size_t i = 0; i < borders.size(); ++i) {
    const bool is_last = i + 1 == borders.size();
    const size_t to_end = is_last ? normalized.text.size() : borders[i + 1].to;
    const size_t from_end = is_last ? runs.back().end : borders[i + 1].from;
    const std::vector<TrustRun> sources = RunsOf(borders[i].from, from_end, runs);
    if (borders[i].is_verbatim) {
      for (const TrustRun& run : sources) ExtendRuns(borders[i].to + run.end, run.trusted, &after);
    } else if (to_end > borders[i].to) {
      const bool trusted = std::all_of(sources.begin(), sources.end(),
                                       [](const TrustRun& run) { return run.trusted; });
      ExtendRuns(to_end, trusted, &after);
    }
  }
  return after;
}

// Appends the tokens that `specials` finds and lets encode(begin, end) append what lies between.
template <typename Encode>
void SplitAtTokens(const SpecialTokens& specials, absl::string_view text,
                   absl::Span<const TrustRun> runs, const TokenSink& sink, Encode encode) {
  const auto hand_on = [&](size_t begin, size_t end) {
    if (begin >= end) return;
    const size_t first = sink.starts == nullptr ? 0 : sink.starts->size();
    encode(begin, end);
    if (sink.starts == nullptr) return;
    for (size_t i = first; i < sink.starts->size(); ++i) {
      (*sink.starts)[i] += static_cast<uint32_t>(begin);
    }
  };
  SpecialTokens::Cursor cursor;
  size_t pending = 0;
  while (const auto match = specials.FindNext(text, runs, &cursor)) {
    hand_on(pending, match->begin);
    sink.Append(match->id, static_cast<uint32_t>(match->text_begin));
    pending = match->end;
  }
  hand_on(pending, text.size());
}

}  // namespace

void Tokenizer::EncodeStretch(absl::string_view stretch, absl::Span<const TrustRun> runs,
                              const TokenSink& sink) const {
  const std::optional<Normalized> normalized = encoder_->Normalize(stretch);
  const absl::string_view text = normalized.has_value() ? normalized->text : stretch;
  const std::vector<TrustRun> late_runs = normalized.has_value()
                                              ? RunsAfter(*normalized, runs)
                                              : std::vector<TrustRun>(runs.begin(), runs.end());
  const size_t first = sink.starts == nullptr ? 0 : sink.starts->size();
  SplitAtTokens(late_specials_, text, late_runs, sink, [&](size_t begin, size_t end) {
    encoder_->EncodeNormalized(text.substr(begin, end - begin), sink);
  });
  if (normalized.has_value() && sink.starts != nullptr) normalized->MapBack(sink.starts, first);
}

void Tokenizer::EncodeJoined(absl::string_view text, absl::Span<const TrustRun> runs,
                             const TokenSink& sink) const {
  SplitAtTokens(specials_, text, runs, sink, [&](size_t begin, size_t end) {
    const absl::string_view stretch = text.substr(begin, end - begin);
    if (late_specials_.empty()) {
      encoder_->Encode(stretch, sink);
    } else {
      EncodeStretch(stretch, RunsOf(begin, end, runs), sink);
    }
  });
}

absl::StatusOr<Encoding> Tokenizer::Encode(absl::Span<const TextPiece> pieces,
                                           const EncodeOptions& options) const {
  std::string text;
  std::vector<TrustRun> runs;
  struct Speaker {
    size_t end;
    Role role;
  };
  std::vector<Speaker> speakers;
  for (size_t i = 0; i < pieces.size(); ++i) {
    COTERIE_RETURN_IF_ERROR(CheckText(pieces[i].text, absl::StrCat("piece=", i, ", ")));
    if (pieces[i].text.empty()) continue;
    text += pieces[i].text;
    ExtendRuns(text.size(), pieces[i].trusted, &runs);
    speakers.push_back({text.size(), pieces[i].role});
    if (text.size() > kMaxTextBytes) return CheckText(text, "all pieces, ");
  }
  Encoding encoding;
  std::vector<uint32_t> starts;
  if (options.add_special) encoding.ids = prefix_;
  encoding.roles.resize(encoding.ids.size(), Role::kNone);
  EncodeJoined(text, runs, {&encoding.ids, &starts});
  auto speaker = speakers.begin();
  for (const uint32_t start : starts) {
    while (speaker->end <= start) ++speaker;
    encoding.roles.push_back(speaker->role);
  }
  if (options.add_special) {
    encoding.ids.insert(encoding.ids.end(), suffix_.begin(), suffix_.end());
  }
  encoding.roles.resize(encoding.ids.size(), Role::kNone);
  return encoding;
}

absl::StatusOr<std::vector<TokenId>> Tokenizer::Encode(absl::string_view text, bool add_special,
                                                       bool parse_special) const {
  COTERIE_RETURN_IF_ERROR(CheckText(text, ""));
  std::vector<TokenId> ids;
  ids.reserve(text.size() / 3 + 4);
  if (add_special) ids = prefix_;
  const TrustRun run = {text.size(), parse_special};
  EncodeJoined(text, {&run, 1}, {&ids, nullptr});
  if (add_special) ids.insert(ids.end(), suffix_.begin(), suffix_.end());
  return ids;
}

void Tokenizer::AppendBytes(TokenId id, bool is_first, std::string* out) const {
  absl::string_view bytes = table_->Bytes(id);
  if (joins_words_) {
    const bool continues = bytes.size() > 2 && absl::StartsWith(bytes, "##");
    if (continues) {
      bytes.remove_prefix(2);
    } else if (!is_first) {
      out->push_back(' ');
    }
  }
  if (removes_space_ && is_first) absl::ConsumePrefix(&bytes, " ");
  out->append(bytes.data(), bytes.size());
}

std::string Tokenizer::Decode(absl::Span<const TokenId> ids, bool skip_special) const {
  std::string bytes;
  bool is_first = true;
  for (const TokenId id : ids) {
    if (skip_special && IsControl(id)) continue;
    AppendBytes(id, is_first, &bytes);
    is_first = false;
  }
  if (FindInvalidUtf8(bytes) == bytes.size()) return bytes;
  std::string text;
  AppendRepaired(bytes, true, &text);
  return text;
}

std::optional<TokenId> Tokenizer::Find(absl::string_view token_text) const {
  TokenId id = specials_.Lookup(token_text);
  if (id < 0) id = late_specials_.Lookup(token_text);
  if (id < 0) id = table_->Lookup(token_text);
  return id < 0 ? std::nullopt : std::make_optional(id);
}

bool Tokenizer::IsControl(TokenId id) const {
  return types_[id] == TokenType::kControl || types_[id] == TokenType::kUnknown;
}

bool Tokenizer::IsEndOfGeneration(TokenId id) const {
  return std::binary_search(ends_.begin(), ends_.end(), id);
}

int64_t Tokenizer::memory_bytes() const {
  return static_cast<int64_t>(sizeof(*this) + types_.capacity() * sizeof(TokenType)) +
         table_->memory_bytes() + encoder_->memory_bytes() + specials_.memory_bytes() +
         late_specials_.memory_bytes();
}

}  // namespace coterie
