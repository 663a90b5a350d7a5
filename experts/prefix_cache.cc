#include "experts/prefix_cache.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/status/statusor.h"

#include "core/base/check.h"

namespace coterie {
namespace {

constexpr size_t kBlock = static_cast<size_t>(PrefixCache::kBlockTokens);

// The tokens of the first n blocks.
absl::Span<const TokenId> FirstBlocks(absl::Span<const TokenId> tokens, size_t n) {
  return tokens.first(n * kBlock);
}

}  // namespace

PrefixCache::PrefixCache(MemoryBudget& budget, double share) : budget_(budget), share_(share) {}

PrefixCache::~PrefixCache() { Clear(); }

int64_t PrefixCache::MaxBytes() const {
  return static_cast<int64_t>(share_ * static_cast<double>(budget_.Snapshot().limit_bytes));
}

PrefixCache::Key PrefixCache::KeyOf(const Chain& before, const std::string& scope,
                                    absl::Span<const TokenId> tokens) {
  Key key;
  if (before.empty()) {
    key.scope = scope;
  } else {
    key.parent = before.back()->second.id;
  }
  const absl::Span<const TokenId> own = tokens.subspan(before.size() * kBlock, kBlock);
  std::copy(own.begin(), own.end(), key.tokens.begin());
  return key;
}

// The known blocks that `tokens` begin with, which are used by this.
PrefixCache::Chain PrefixCache::FindLocked(const std::string& scope,
                                           absl::Span<const TokenId> tokens) {
  ++clock_;
  Chain chain;
  while ((chain.size() + 1) * kBlock <= tokens.size()) {
    const auto found = blocks_.find(KeyOf(chain, scope, tokens));
    if (found == blocks_.end()) break;
    found->second.last_use = clock_;
    chain.push_back(found);
  }
  return chain;
}

void PrefixCache::Continue(const std::string& scope, absl::Span<const TokenId> tokens,
                           KvCache& kv) {
  if (kv.n_tokens() % kBlockTokens != 0) return;
  std::vector<std::shared_ptr<Contents>> found;
  {
    MutexLock lock(mutex_);
    const Chain chain = FindLocked(scope, tokens);
    for (size_t i = static_cast<size_t>(kv.n_tokens()) / kBlock; i < chain.size(); ++i) {
      found.push_back(chain[i]->second.contents);
    }
  }
  for (const std::shared_ptr<Contents>& contents : found) {
    COTERIE_CHECK(contents->bytes.bytes() == kv.block_bytes(), "a scope has one size of block");
    kv.ImportBlock(contents->bytes.data());
  }
  {
    MutexLock lock(mutex_);  // So that who waits for readers sees them go; they free nothing.
    found.clear();
  }
  changed_.NotifyAll();
}

void PrefixCache::Keep(const std::string& scope, absl::Span<const TokenId> tokens,
                       const KvCache& kv, uint64_t era) {
  const size_t n_blocks = tokens.size() / kBlock;
  for (size_t i = 0; i < n_blocks; ++i) {
    const bool is_here =
        Add(scope, FirstBlocks(tokens, i + 1), kv.block_bytes(), era, [&](uint8_t* block) {
          kv.ExportBlock(static_cast<int64_t>(i), block);
          return true;
        });
    if (!is_here) break;
  }
}

bool PrefixCache::IsHere(const std::string& scope, absl::Span<const TokenId> tokens) {
  MutexLock lock(mutex_);
  return FindLocked(scope, tokens).size() == tokens.size() / kBlock;
}

bool PrefixCache::Add(const std::string& scope, absl::Span<const TokenId> tokens, int64_t bytes,
                      uint64_t era, absl::FunctionRef<bool(uint8_t* block)> write) {
  COTERIE_CHECK(!tokens.empty() && tokens.size() % kBlock == 0, "blocks are whole");
  if (IsHere(scope, tokens)) return true;
  std::shared_ptr<Contents> contents = MakeRoom(scope, tokens, bytes, era);
  if (contents == nullptr) return false;
  contents->bytes = AlignedBuffer(bytes);
  const bool is_written = write(contents->bytes.data());
  bool is_here = false;
  {
    MutexLock lock(mutex_);
    adding_bytes_ -= bytes;
    is_here = is_written && InsertLocked(scope, tokens, contents, era);
  }
  changed_.NotifyAll();
  return is_here;
}

// Charges the bytes of one block, for which the least recently used others go; never those that
// come before it. Null if they are not enough.
std::shared_ptr<PrefixCache::Contents> PrefixCache::MakeRoom(const std::string& scope,
                                                             absl::Span<const TokenId> tokens,
                                                             int64_t bytes, uint64_t era) {
  while (true) {
    std::shared_ptr<Contents> oldest;  // Freed after the lock.
    MutexLock lock(mutex_);
    if (n_reclaiming_ > 0 || era != era_) return nullptr;
    const Chain before = FindLocked(scope, tokens);
    if ((before.size() + 1) * kBlock != tokens.size()) return nullptr;
    if (held_bytes_ + adding_bytes_ + bytes <= MaxBytes()) {
      std::vector<Reservation> nothing_given;  // Not Reserve, which would ask this cache.
      auto charged = budget_.Exchange(nothing_given, {{Purpose::kPrefixCache, bytes}});
      if (charged.ok()) {
        adding_bytes_ += bytes;
        auto contents = std::make_shared<Contents>();
        contents->charge = std::move(charged->front());
        return contents;
      }
    }
    oldest = TakeOldestLocked(/*used_before=*/clock_);
    if (oldest == nullptr) return nullptr;
    WaitForReadersLocked({&oldest, 1});
  }
}

// On success `contents` is null; what was there already stays.
bool PrefixCache::InsertLocked(const std::string& scope, absl::Span<const TokenId> tokens,
                               std::shared_ptr<Contents>& contents, uint64_t era) {
  const Chain before = FindLocked(scope, tokens);
  if (before.size() * kBlock == tokens.size()) return true;
  if (era != era_ || (before.size() + 1) * kBlock != tokens.size()) return false;
  Block block;
  block.id = ++n_ids_;
  block.last_use = clock_;
  if (!before.empty()) {
    block.parent = &before.back()->second;
    ++block.parent->n_children;
  }
  held_bytes_ += contents->bytes.bytes();
  block.contents = std::move(contents);
  blocks_.emplace(KeyOf(before, scope, tokens), std::move(block));
  ++n_added_;
  return true;
}

bool PrefixCache::Read(const std::string& scope, absl::Span<const TokenId> tokens,
                       absl::FunctionRef<void(absl::Span<const uint8_t> block)> read) {
  std::shared_ptr<Contents> contents;
  {
    MutexLock lock(mutex_);
    const Chain chain = FindLocked(scope, tokens);
    if (chain.empty() || chain.size() * kBlock != tokens.size()) return false;
    contents = chain.back()->second.contents;
  }
  read({contents->bytes.data(), static_cast<size_t>(contents->bytes.bytes())});
  {
    MutexLock lock(mutex_);
    contents.reset();
  }
  changed_.NotifyAll();
  return true;
}

// Takes the contents of the block that was not used for longest and that no other follows out of
// the cache. Null if there is none that was last used before `used_before`.
std::shared_ptr<PrefixCache::Contents> PrefixCache::TakeOldestLocked(uint64_t used_before) {
  auto oldest = blocks_.end();
  for (auto it = blocks_.begin(); it != blocks_.end(); ++it) {
    const Block& block = it->second;
    if (block.n_children > 0 || block.last_use >= used_before) continue;
    if (oldest == blocks_.end() || block.last_use < oldest->second.last_use) oldest = it;
  }
  if (oldest == blocks_.end()) return nullptr;
  std::shared_ptr<Contents> contents = std::move(oldest->second.contents);
  if (oldest->second.parent != nullptr) --oldest->second.parent->n_children;
  blocks_.erase(oldest);
  held_bytes_ -= contents->bytes.bytes();
  ++n_dropped_;
  return contents;
}

void PrefixCache::WaitForReadersLocked(absl::Span<const std::shared_ptr<Contents>> taken) {
  for (const std::shared_ptr<Contents>& contents : taken) {
    while (contents.use_count() > 1) changed_.Wait(mutex_);
  }
}

std::vector<Reservation> PrefixCache::Reclaim(int64_t bytes_needed) {
  std::vector<std::shared_ptr<Contents>> taken;
  int64_t taken_bytes = 0;
  {
    MutexLock lock(mutex_);
    if (held_bytes_ + adding_bytes_ < bytes_needed) return {};
    ++n_reclaiming_;
    while (taken_bytes < bytes_needed) {
      std::shared_ptr<Contents> oldest = TakeOldestLocked(std::numeric_limits<uint64_t>::max());
      if (oldest != nullptr) {
        taken_bytes += oldest->bytes.bytes();
        taken.push_back(std::move(oldest));
      } else if (adding_bytes_ > 0) {
        changed_.Wait(mutex_);  // Additions take as long as copying a block does.
      } else {
        break;
      }
    }
    --n_reclaiming_;
    WaitForReadersLocked(taken);
  }
  std::vector<Reservation> freed;
  for (std::shared_ptr<Contents>& contents : taken) {
    contents->bytes = AlignedBuffer();
    freed.push_back(std::move(contents->charge));
  }
  // An addition that found no place any more gave its bytes to nobody in particular.
  if (taken_bytes < bytes_needed) freed.clear();
  return freed;
}

void PrefixCache::TrimTo(int64_t bytes) {
  int64_t excess_bytes = 0;
  {
    MutexLock lock(mutex_);
    excess_bytes = std::min(held_bytes_, held_bytes_ + adding_bytes_ - bytes);
  }
  if (excess_bytes > 0) Reclaim(excess_bytes);
}

void PrefixCache::Clear() {
  std::vector<std::shared_ptr<Contents>> taken;
  MutexLock lock(mutex_);
  ++era_;
  while (std::shared_ptr<Contents> oldest =
             TakeOldestLocked(std::numeric_limits<uint64_t>::max())) {
    taken.push_back(std::move(oldest));
  }
  WaitForReadersLocked(taken);
}

uint64_t PrefixCache::era() const {
  MutexLock lock(mutex_);
  return era_;
}

int64_t PrefixCache::expendable_bytes() const {
  MutexLock lock(mutex_);
  return held_bytes_ + adding_bytes_;
}

PrefixCacheStats PrefixCache::Stats() const {
  const int64_t max_bytes = MaxBytes();
  MutexLock lock(mutex_);
  return {held_bytes_, max_bytes, static_cast<int64_t>(blocks_.size()), n_added_, n_dropped_};
}

}  // namespace coterie
