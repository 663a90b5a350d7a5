#pragma once

// Byte-pair merging, the part that all BPE tokenizers share: neighbours in a piece of text become
// one token, the strongest merge first, until none applies.

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"

#include "core/formats/text_encoder.h"
#include "core/formats/token_table.h"

namespace coterie {

// A merge that may happen: how early in the upper 40 bits (the least goes first), the token that it
// makes in the lower 24. Of equal merges the leftmost goes first.
using MergeKey = uint64_t;
inline constexpr MergeKey kNoMerge = ~MergeKey{0};
inline constexpr int kMergedIdBits = 24;
inline TokenId MergedId(MergeKey key) {
  return static_cast<TokenId>(key & ((MergeKey{1} << kMergedIdBits) - 1));
}

// `Rules` says what text begins as and what merges:
//   struct Symbol { TokenId id; uint32_t begin; MergeKey with_next; ... };  begin is in the piece
//   void Split(absl::string_view piece, std::vector<Symbol>* symbols) const;   with_next is not set
//   MergeKey Find(absl::string_view piece, const Symbol& left, const Symbol& right) const;
//   void Join(Symbol* left, const Symbol& right) const;        left->id is set by the caller
// Const and thread-safe once built; `table` must outlive it. Takes O(n log n) time in the length of
// a piece.
template <typename Rules>
class PieceMerger {
 public:
  using Symbol = typename Rules::Symbol;

  // Buffers that calls on one thread share.
  struct Scratch {
    std::vector<Symbol> symbols;
    std::vector<uint32_t> previous, next;  // MergeLong: neighbours that are left.
  };

  PieceMerger(const TokenTable& table, const Rules& rules)
      : table_(table), rules_(rules), wholeness_(new std::atomic<uint8_t>[table.size()]()) {}

  // Takes a piece with this token's bytes without asking the merges.
  void SetWhole(TokenId id) { wholeness_[id] = kWhole; }

  // Appends the tokens of a piece, which stands at `begin` of the stretch.
  void Append(absl::string_view piece, uint32_t begin, Scratch* scratch,
              const TokenSink& sink) const {
    const TokenId id = table_.Lookup(piece);
    if (id >= 0 && IsWhole(id, piece, scratch)) {
      sink.Append(id, begin);
      return;
    }
    Merge(piece, scratch);
    for (const Symbol& symbol : scratch->symbols) sink.Append(symbol.id, begin + symbol.begin);
  }

  int64_t memory_bytes() const { return table_.size(); }

 private:
  // Above this many symbols a heap beats looking at all of them for each merge.
  static constexpr size_t kMaxShort = 64;
  // Whether the merges, given a token's bytes, lead to that token alone. Found out when first
  // needed; races are harmless because every thread finds the same.
  enum Wholeness : uint8_t { kUntried, kWhole, kDivided };

  bool IsWhole(TokenId id, absl::string_view piece, Scratch* scratch) const {
    std::atomic<uint8_t>& known = wholeness_[id];
    uint8_t wholeness = known.load(std::memory_order_relaxed);
    if (wholeness == kUntried) {
      Merge(piece, scratch);
      const bool is_whole = scratch->symbols.size() == 1 && scratch->symbols[0].id == id;
      wholeness = is_whole ? kWhole : kDivided;
      known.store(wholeness, std::memory_order_relaxed);
    }
    return wholeness == kWhole;
  }

  // Replaces the scratch's symbols by the tokens of the piece.
  void Merge(absl::string_view piece, Scratch* scratch) const {
    std::vector<Symbol>& symbols = scratch->symbols;
    symbols.clear();
    rules_.Split(piece, &symbols);
    for (size_t i = 0; i < symbols.size(); ++i) {
      symbols[i].with_next =
          i + 1 < symbols.size() ? rules_.Find(piece, symbols[i], symbols[i + 1]) : kNoMerge;
    }
    if (symbols.size() <= kMaxShort) {
      MergeShort(piece, &symbols);
    } else {
      MergeLong(piece, scratch);
    }
  }

  void MergeShort(absl::string_view piece, std::vector<Symbol>* symbols_of_piece) const {
    std::vector<Symbol>& symbols = *symbols_of_piece;
    while (symbols.size() > 1) {
      size_t best = 0;
      for (size_t i = 1; i < symbols.size(); ++i) {
        if (symbols[i].with_next < symbols[best].with_next) best = i;
      }
      if (symbols[best].with_next == kNoMerge) return;
      symbols[best].id = MergedId(symbols[best].with_next);
      rules_.Join(&symbols[best], symbols[best + 1]);
      symbols.erase(symbols.begin() + best + 1);
      symbols[best].with_next = best + 1 < symbols.size()
                                    ? rules_.Find(piece, symbols[best], symbols[best + 1])
                                    : kNoMerge;
      if (best > 0) {
        symbols[best - 1].with_next = rules_.Find(piece, symbols[best - 1], symbols[best]);
      }
    }
  }

  void MergeLong(absl::string_view piece, Scratch* scratch) const {
    std::vector<Symbol>& symbols = scratch->symbols;
    std::vector<uint32_t>& previous = scratch->previous;
    std::vector<uint32_t>& next = scratch->next;
    const auto n = static_cast<uint32_t>(symbols.size());
    previous.resize(n);
    next.resize(n);
    // A heap of merges and where they are. Entries that are no longer the symbol's are stale.
    using Entry = std::pair<MergeKey, uint32_t>;
    std::vector<Entry> heap;
    heap.reserve(n);
    for (uint32_t i = 0; i < n; ++i) {
      previous[i] = i - 1;
      next[i] = i + 1;
      if (symbols[i].with_next != kNoMerge) heap.emplace_back(symbols[i].with_next, i);
    }
    const auto later = std::greater<Entry>();
    std::make_heap(heap.begin(), heap.end(), later);
    const auto update = [&](uint32_t i) {
      symbols[i].with_next =
          next[i] < n ? rules_.Find(piece, symbols[i], symbols[next[i]]) : kNoMerge;
      if (symbols[i].with_next == kNoMerge) return;
      heap.emplace_back(symbols[i].with_next, i);
      std::push_heap(heap.begin(), heap.end(), later);
    };
    while (!heap.empty()) {
      const auto [key, i] = heap.front();
      std::pop_heap(heap.begin(), heap.end(), later);
      heap.pop_back();
      if (symbols[i].with_next != key) continue;
      const uint32_t gone = next[i];
      symbols[i].id = MergedId(key);
      rules_.Join(&symbols[i], symbols[gone]);
      symbols[gone].id = -1;
      symbols[gone].with_next = kNoMerge;
      next[i] = next[gone];
      if (next[i] < n) previous[next[i]] = i;
      update(i);
      if (i > 0) update(previous[i]);
    }
    symbols.erase(std::remove_if(symbols.begin(), symbols.end(),
                                 [](const Symbol& symbol) { return symbol.id < 0; }),
                  symbols.end());
  }

  const TokenTable& table_;
  const Rules& rules_;
  std::unique_ptr<std::atomic<uint8_t>[]> wholeness_;  // [n_vocab]
};

}  // namespace coterie
