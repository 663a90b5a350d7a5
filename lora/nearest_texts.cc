#include "lora/nearest_texts.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/ascii.h"

#include "core/base/check.h"
#include "core/formats/utf8.h"
#include "lora/stable_hash.h"

namespace coterie {
namespace {

constexpr size_t kShortestGram = 3, kLongestGram = 5;
constexpr size_t kHeadBytes = 384, kTailBytes = 128;
constexpr double kEqual = 1e-9;

// The part of a text that counts, in lower case, words one space apart and one around.
std::string Folded(absl::string_view text) {
  std::string cut;
  if (text.size() > kHeadBytes + kTailBytes) {
    cut.append(text.data(), kHeadBytes);
    cut += ' ';
    cut.append(text.data() + text.size() - kTailBytes, kTailBytes);
    text = cut;
  }
  std::string folded = " ";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (!absl::ascii_isspace(byte)) {
      folded += absl::ascii_tolower(byte);
    } else if (folded.back() != ' ') {
      folded += ' ';
    }
  }
  if (folded.back() != ' ') folded += ' ';
  return folded;
}

// Where the characters of a text begin, and its end; bytes that are not UTF-8 count as characters.
std::vector<size_t> CharacterBegins(absl::string_view text) {
  std::vector<size_t> begins;
  for (size_t i = 0; i < text.size();) {
    begins.push_back(i);
    bool is_valid = false, is_cut = false;
    i += ScanUtf8(text.substr(i), &is_valid, &is_cut).n_bytes;
  }
  begins.push_back(text.size());
  return begins;
}

}  // namespace

std::vector<std::pair<uint64_t, float>> NearestTexts::CountGrams(absl::string_view text) {
  const std::string folded = Folded(text);
  const absl::string_view view = folded;
  const std::vector<size_t> begins = CharacterBegins(view);
  std::vector<uint64_t> hashes;
  for (size_t n = kShortestGram; n <= kLongestGram; ++n) {
    for (size_t i = 0; i + n < begins.size(); ++i) {
      hashes.push_back(StableHash(view.substr(begins[i], begins[i + n] - begins[i])));
    }
  }
  std::sort(hashes.begin(), hashes.end());
  std::vector<std::pair<uint64_t, float>> counts;
  for (const uint64_t hash : hashes) {
    if (counts.empty() || counts.back().first != hash) counts.emplace_back(hash, 0.0f);
    counts.back().second += 1;
  }
  return counts;
}

double NearestTexts::Idf(size_t n_texts) const {
  const auto n = static_cast<double>(slots_.size());
  return std::log((1 + n) / (1 + static_cast<double>(n_texts))) + 1;
}

void NearestTexts::Settle() {
  if (is_settled_) return;
  for (Document& document : documents_) document.square = 0;
  for (const std::vector<Posting>& postings : postings_) {
    const double idf = Idf(postings.size());
    for (const Posting& posting : postings) {
      const double weight = posting.count * idf;
      documents_[posting.slot].square += weight * weight;
    }
  }
  is_settled_ = true;
}

void NearestTexts::Add(int64_t key, absl::string_view text) {
  uint32_t slot = static_cast<uint32_t>(documents_.size());
  if (free_slots_.empty()) {
    documents_.emplace_back();
  } else {
    slot = free_slots_.back();
    free_slots_.pop_back();
  }
  const bool is_new = slots_.emplace(key, slot).second;
  COTERIE_CHECK(is_new, "a key is added once");
  documents_[slot] = {};
  documents_[slot].key = key;
  is_settled_ = false;
  for (const auto& [hash, count] : CountGrams(text)) {
    const auto [it, is_new_gram] =
        grams_.try_emplace(hash, static_cast<uint32_t>(postings_.size()));
    if (is_new_gram) postings_.emplace_back();
    postings_[it->second].push_back({slot, count});
    documents_[slot].grams.push_back(it->second);
    ++n_postings_;
  }
}

void NearestTexts::Remove(int64_t key) {
  const auto found = slots_.find(key);
  if (found == slots_.end()) return;
  const uint32_t slot = found->second;
  for (const uint32_t gram : documents_[slot].grams) {
    std::vector<Posting>& postings = postings_[gram];
    const auto own = std::find_if(postings.begin(), postings.end(),
                                  [slot](const Posting& p) { return p.slot == slot; });
    *own = postings.back();
    postings.pop_back();
    --n_postings_;
  }
  slots_.erase(found);
  is_settled_ = false;
  documents_[slot] = {};
  free_slots_.push_back(slot);
}

std::vector<NearestTexts::Match> NearestTexts::Nearest(absl::string_view text, size_t n) {
  Settle();
  std::vector<double> products(documents_.size(), 0.0);
  double query_square = 0;
  for (const auto& [hash, count] : CountGrams(text)) {
    const auto it = grams_.find(hash);
    const size_t frequency = it == grams_.end() ? 0 : postings_[it->second].size();
    const double idf = Idf(frequency);
    query_square += double{count} * count * idf * idf;
    if (frequency == 0) continue;
    const double weight = count * idf * idf;
    for (const Posting& posting : postings_[it->second]) {
      products[posting.slot] += weight * posting.count;
    }
  }
  std::vector<Match> matches;
  for (size_t slot = 0; slot < documents_.size(); ++slot) {
    if (products[slot] <= 0) continue;
    const Document& document = documents_[slot];
    matches.push_back({document.key, products[slot] / std::sqrt(query_square * document.square)});
  }
  const auto closer = [](const Match& a, const Match& b) {
    const auto rounded = [](const Match& match) { return std::round(match.similarity / kEqual); };
    return std::make_pair(rounded(a), a.key) > std::make_pair(rounded(b), b.key);
  };
  n = std::min(n, matches.size());
  std::partial_sort(matches.begin(), matches.begin() + static_cast<ptrdiff_t>(n), matches.end(),
                    closer);
  matches.resize(n);
  return matches;
}

int64_t NearestTexts::memory_bytes() const {
  // A hash map's entry costs its node and its place in the table; vectors grow by doubling.
  constexpr size_t kMapEntryBytes = 48;
  return static_cast<int64_t>(grams_.size() * (kMapEntryBytes + 2 * sizeof(std::vector<Posting>)) +
                              slots_.size() * kMapEntryBytes +
                              documents_.capacity() * sizeof(Document)) +
         n_postings_ * static_cast<int64_t>(2 * (sizeof(Posting) + sizeof(uint32_t)));
}

int64_t NearestTexts::EstimateBytes(size_t text_bytes) {
  constexpr int64_t kGramBytes =
      48 + 2 * sizeof(std::vector<Posting>) + 2 * (sizeof(Posting) + sizeof(uint32_t));
  const int64_t n_characters =
      static_cast<int64_t>(std::min(text_bytes, kHeadBytes + kTailBytes)) + 3;
  return n_characters * 3 * kGramBytes + 48 + 2 * static_cast<int64_t>(sizeof(Document));
}

}  // namespace coterie
