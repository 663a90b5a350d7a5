#include "core/formats/merge_table.h"

#include <string>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"

#include "core/base/status_macros.h"

namespace coterie {
namespace {

constexpr int kMaxProbes = 4096;

// Turns the lines of a list of merges into ids.
class MergeReader {
 public:
  MergeReader(const TokenizerVocabulary& vocabulary, const TokenTable& table)
      : vocabulary_(vocabulary), table_(table) {
    if (vocabulary.family != TokenizerFamily::kSentencePiece) return;
    for (TokenId id = 0; id < table.size(); ++id) {
      if (!vocabulary.IsPlain(id)) specials_.insert(table.Bytes(id));
    }
  }

  struct Merge {
    TokenId left;
    TokenId right;
    TokenId merged;  // -1: the merge concerns special tokens.
  };
  absl::StatusOr<Merge> Read(size_t rank) {
    const absl::string_view text = vocabulary_.merges[rank];
    const size_t space = text.find(' ');
    if (space == absl::string_view::npos) return Error(rank, "a merge is not two tokens");
    bytes_.clear();
    if (!vocabulary_.AppendBytes(text.substr(0, space), &bytes_)) {
      return Error(rank, "bad merge text");
    }
    const size_t n_left = bytes_.size();
    if (!vocabulary_.AppendBytes(text.substr(space + 1), &bytes_)) {
      return Error(rank, "bad merge text");
    }
    const absl::string_view joined = bytes_;
    const absl::string_view left = joined.substr(0, n_left), right = joined.substr(n_left);
    const Merge merge = {table_.Lookup(left), table_.Lookup(right), LookupNext(joined)};
    const auto is_special = [&](TokenId id, absl::string_view token) {
      return id < 0 && specials_.contains(token);
    };
    if (is_special(merge.left, left) || is_special(merge.right, right) ||
        is_special(merge.merged, joined)) {
      return Merge{-1, -1, -1};
    }
    if (merge.left < 0 || merge.right < 0) {
      return Error(rank, "a merge names a token that is not there");
    }
    if (merge.merged < 0) return Error(rank, "a merge makes no token, or a control token");
    last_ = merge.merged;
    return merge;
  }

  absl::Status Error(size_t rank, absl::string_view what) const {
    return absl::DataLossError(absl::StrCat(
        what, ": ", vocabulary_.names.merges, "[", rank, "]=\"",
        absl::CHexEscape(vocabulary_.merges[rank].substr(0, 80)), "\", file=", vocabulary_.origin));
  }

 private:
  // Merged tokens usually stand in the order of their merges.
  TokenId LookupNext(absl::string_view bytes) const {
    const TokenId next = last_ + 1;
    const bool is_next = next < table_.size() && table_.Bytes(next) == bytes &&
                         vocabulary_.type(next) == TokenType::kNormal;
    return is_next ? next : table_.Lookup(bytes);
  }

  const TokenizerVocabulary& vocabulary_;
  const TokenTable& table_;
  absl::flat_hash_set<absl::string_view> specials_;
  TokenId last_ = 0;
  std::string bytes_;
};

}  // namespace

MergeTable::MergeTable(size_t n_merges) {
  size_t capacity = 16;
  while (capacity < n_merges * 3 / 2) capacity *= 2;
  slots_.resize(capacity);
  mask_ = capacity - 1;
}

absl::StatusOr<MergeTable> MergeTable::Create(const TokenizerVocabulary& vocabulary,
                                              const TokenTable& table) {
  MergeTable merges(vocabulary.merges.size());
  MergeReader reader(vocabulary, table);
  for (size_t rank = 0; rank < vocabulary.merges.size(); ++rank) {
    COTERIE_ASSIGN_OR_RETURN(const MergeReader::Merge merge, reader.Read(rank));
    if (merge.merged < 0) continue;
    const MergeKey key = static_cast<MergeKey>(rank) << kMergedIdBits | merge.merged;
    const auto insertion = merges.Add(merge.left, merge.right, key);
    if (insertion == TokenTable::Insertion::kDuplicate) {
      return reader.Error(rank, "a merge stands twice");
    }
    if (insertion != TokenTable::Insertion::kDone) {
      return reader.Error(rank, "merges collide in the table");
    }
  }
  return merges;
}

TokenTable::Insertion MergeTable::Add(TokenId left, TokenId right, MergeKey merge) {
  const uint64_t pair = PairOf(left, right);
  uint64_t i = Hash(pair) & mask_;
  for (int n_probes = 0; slots_[i].pair != kEmpty; i = (i + 1) & mask_) {
    if (slots_[i].pair == pair) return TokenTable::Insertion::kDuplicate;
    if (++n_probes == kMaxProbes) return TokenTable::Insertion::kTooManyCollisions;
  }
  slots_[i] = {pair, merge};
  return TokenTable::Insertion::kDone;
}

}  // namespace coterie
