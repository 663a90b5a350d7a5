#include "runtime/prefix_shelf.h"

#include <utility>

#include "absl/strings/str_cat.h"

#include "core/base/status_macros.h"
#include "core/kernels/kernels.h"

namespace coterie {
namespace {

constexpr size_t kBlock = static_cast<size_t>(PrefixCache::kBlockTokens);

// Answers whose blocks wait to be written; beyond, the oldest are not.
constexpr size_t kMaxWork = 16;

// Of a block's file while it is read: the file and, sealed, what is in it.
constexpr int64_t kReadCopies = 2;
// While it is written: the same, and the body before it gets its head.
constexpr int64_t kWriteCopies = 3;

}  // namespace

PrefixShelf::PrefixShelf(MemoryBudget& budget, double share, std::string folder)
    : budget_(budget),
      memory_(budget, share),
      folder_(std::move(folder)),
      store_(std::make_unique<PrefixStore>(folder_, 0, "")),
      seen_era_(store_->Era()) {}

PrefixShelf::~PrefixShelf() {
  {
    MutexLock lock(mutex_);
    stops_ = true;
  }
  changed_.NotifyAll();
  if (writer_.joinable()) writer_.join();
}

void PrefixShelf::UseDisk(int64_t max_bytes, std::string key) {
  store_ = std::make_unique<PrefixStore>(folder_, max_bytes, std::move(key));
  writer_ = std::thread([this] { RunWriter(); });
}

PrefixShelf::Place PrefixShelf::PlaceFor(const std::string& base, uint64_t base_version,
                                         const LinearDeltaSet* adapter, Activations activations) {
  LookForForgotten();
  Place place;
  {
    MutexLock lock(mutex_);
    place.disk_era = seen_era_;
  }
  place.memory_era = memory_.era();
  // Another instruction set may round differently.
  place.scope =
      absl::StrCat("base=", base, " ", absl::Hex(base_version),
                   "\nactivations=", static_cast<int>(activations), "\nkernels=", Kernels().isa);
  if (adapter != nullptr) {
    absl::StrAppend(&place.scope, "\nadapter=", adapter->version(), " ",
                    absl::Hex(adapter->fingerprint()));
  }
  return place;
}

void PrefixShelf::TakeUp(const Place& place, absl::Span<const TokenId> prompt, KvCache& kv) {
  if (prompt.empty()) return;
  const absl::Span<const TokenId> tokens = prompt.first(prompt.size() - 1);
  memory_.Continue(place.scope, tokens, kv);
  const int64_t n_in_memory = kv.n_tokens();
  if (store_->is_on()) ReadFromDisk(place, tokens, kv);
  MutexLock lock(mutex_);
  ++(kv.n_tokens() > 0 ? stats_.n_hits : stats_.n_misses);
  stats_.cached_tokens += kv.n_tokens();
  stats_.disk_tokens += kv.n_tokens() - n_in_memory;
}

std::vector<BlockPlace> PrefixShelf::BlocksOf(const std::string& scope,
                                              absl::Span<const TokenId> tokens,
                                              int64_t block_bytes) const {
  std::vector<BlockPlace> blocks;
  std::string before = FirstBlockName(scope, store_->key());
  for (; tokens.size() >= kBlock; tokens.remove_prefix(kBlock)) {
    std::string name = BlockName(before, tokens.first(kBlock));
    blocks.push_back({std::move(before), name, tokens.first(kBlock), block_bytes});
    before = std::move(name);
  }
  return blocks;
}

// Only free memory, and nothing that would be asked of the cache that is being filled.
absl::StatusOr<Reservation> PrefixShelf::ReserveForFile(const BlockPlace& block, int64_t n_copies) {
  const int64_t bytes = n_copies * BlockFileBytes(block, store_->key());
  std::vector<Reservation> nothing_given;
  auto charged = budget_.Exchange(nothing_given, {{Purpose::kPrefixCache, bytes}});
  if (!charged.ok()) return charged.status();
  return std::move(charged->front());
}

// Goes on where memory ends. What is read is kept in memory, for the next answer.
void PrefixShelf::ReadFromDisk(const Place& place, absl::Span<const TokenId> tokens, KvCache& kv) {
  const std::vector<BlockPlace> blocks = BlocksOf(place.scope, tokens, kv.block_bytes());
  for (size_t i = static_cast<size_t>(kv.n_tokens()) / kBlock; i < blocks.size(); ++i) {
    const absl::Span<const TokenId> with_it = tokens.first((i + 1) * kBlock);
    if (!ReadBlock(place, blocks[i], with_it)) return;
    memory_.Continue(place.scope, with_it, kv);
    if (kv.n_tokens() != static_cast<int64_t>(with_it.size())) return;  // Others took it.
  }
}

bool PrefixShelf::ReadBlock(const Place& place, const BlockPlace& block,
                            absl::Span<const TokenId> tokens) {
  if (!store_->Has(block.name)) return false;
  const absl::StatusOr<Reservation> charged = ReserveForFile(block, kReadCopies);
  if (!charged.ok()) return false;
  return memory_.Add(place.scope, tokens, block.block_bytes, place.memory_era,
                     [&](uint8_t* values) { return store_->Read(block, values); });
}

void PrefixShelf::Keep(const Place& place, absl::Span<const TokenId> tokens, const KvCache& kv,
                       bool on_disk) {
  memory_.Keep(place.scope, tokens, kv, place.memory_era);
  const absl::Span<const TokenId> whole = tokens.first(tokens.size() / kBlock * kBlock);
  if (!on_disk || !store_->is_on() || whole.empty()) return;
  Work work{place, {whole.begin(), whole.end()}, kv.block_bytes()};
  {
    MutexLock lock(mutex_);
    if (work_.size() == kMaxWork) work_.pop_front();
    work_.push_back(std::move(work));
  }
  changed_.NotifyAll();
}

void PrefixShelf::RunWriter() {
  while (true) {
    Work work;
    {
      MutexLock lock(mutex_);
      while (work_.empty()) {
        if (stops_) return;
        changed_.Wait(mutex_);
      }
      work = std::move(work_.front());
      work_.pop_front();
    }
    Write(work);
  }
}

void PrefixShelf::Write(const Work& work) {
  const absl::Span<const TokenId> tokens = work.tokens;
  std::vector<std::string> there;
  for (const BlockPlace& block : BlocksOf(work.place.scope, tokens, work.block_bytes)) {
    if (!store_->Has(block.name) &&
        !WriteBlock(work, block, tokens.first((there.size() + 1) * kBlock))) {
      break;  // Those that follow it could not be found.
    }
    there.push_back(block.name);
  }
  store_->NoteUse(there);
}

// From memory, which may have lost it meanwhile.
bool PrefixShelf::WriteBlock(const Work& work, const BlockPlace& block,
                             absl::Span<const TokenId> tokens) {
  const absl::StatusOr<Reservation> charged = ReserveForFile(block, kWriteCopies);
  if (!charged.ok()) return false;
  std::string file;
  const bool is_there =
      memory_.Read(work.place.scope, tokens, [&](absl::Span<const uint8_t> values) {
        file = WriteBlockFile(block, values, store_->key());
      });
  if (!is_there || !store_->Write(block.name, file, work.place.disk_era).ok()) return false;
  MutexLock lock(mutex_);
  ++stats_.n_written;
  return true;
}

absl::Status PrefixShelf::Forget() {
  memory_.Clear();
  {
    MutexLock lock(mutex_);
    work_.clear();
  }
  COTERIE_RETURN_IF_ERROR(store_->Forget());
  LookForForgotten();
  return absl::OkStatus();
}

void PrefixShelf::LookForForgotten() {
  std::string era = store_->Era();
  {
    MutexLock lock(mutex_);
    if (era == seen_era_) return;
    seen_era_ = std::move(era);
  }
  memory_.Clear();
}

PrefixStats PrefixShelf::Stats() const {
  const PrefixCacheStats memory = memory_.Stats();
  MutexLock lock(mutex_);
  PrefixStats stats = stats_;
  stats.n_failures = store_->n_failures();
  stats.n_damaged = store_->n_damaged();
  stats.memory = memory;
  return stats;
}

}  // namespace coterie
