#include "runtime/assistant.h"

#include <malloc.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"

#include "core/base/byte_size.h"
#include "core/base/status_macros.h"
#include "experts/lookup_decoder.h"
#include "lora/record_cipher.h"
#include "runtime/default_router.h"

namespace coterie {
namespace {

constexpr absl::Duration kUpkeepPeriod = absl::Seconds(1);
constexpr size_t kMaxEvents = 500;
constexpr size_t kMaxConversations = 10000;

// What "fits" means for an expert: its weights and a conversation of this length.
constexpr int64_t kShortConversationTokens = 512;

// The measured time of the last loads, or, before any, the time that the page cache or a disk of
// about a gigabyte a second needs.
double ExpectedLoadMs(const BaseResidency* known, int64_t bytes) {
  if (known != nullptr && known->reload_time > absl::ZeroDuration()) {
    return absl::ToDoubleMilliseconds(known->reload_time);
  }
  return static_cast<double>(bytes) / 1e6;
}

// Null: the cache's own.
std::shared_ptr<const EvictionPolicy> PolicyOf(LeavingPolicy policy) {
  return policy == LeavingPolicy::kLru ? std::make_shared<LruPolicy>() : nullptr;
}

HoldOptions HoldsOf(LeavingPolicy policy) {
  HoldOptions hold;
  if (policy == LeavingPolicy::kLru) hold.load_times = 0;
  return hold;
}

}  // namespace

Assistant::Assistant(Configuration configuration)
    : configuration_(std::move(configuration)),
      pool_(configuration_.threads),
      budget_(configuration_.memory_budget_bytes),
      screens_(budget_),
      batches_(pool_, budget_, configuration_.batch,
               configuration_.cache.head_screens ? &screens_ : nullptr),
      source_(std::make_unique<FileBaseSource>()),
      prefixes_(budget_, configuration_.cache.prefix_share,
                absl::StrCat(configuration_.home, "/prefixes")),
      expendable_({&screens_, &prefixes_.memory()}),
      cache_(std::make_unique<ExpertCache>(
          budget_, *source_,
          ExpertCacheOptions{.policy = PolicyOf(configuration_.cache.policy),
                             .hold = HoldsOf(configuration_.cache.policy),
                             .keep_alive = configuration_.cache.keep_alive,
                             .resident_bytes = &ResidentBytes,
                             .on_wait = [this] { training_pause_.Ask(); },
                             .expendable = &expendable_,
                             .trim = [] { malloc_trim(0); }})),
      scheduler_(configuration_.queue, [this] { return LookAtCache(); }) {
  budget_.SetExpendable(expendable_);
  cache_->SetEventSink([this](const CacheEvent& event) { OnCacheEvent(event); });
  adapters_ =
      std::make_unique<AdapterShelf>(configuration_.home, budget_, *cache_,
                                     [this](const std::string& name, const std::string& problem) {
                                       Event event;
                                       event.kind = "adapter_failed";
                                       event.expert = name;
                                       event.text = problem;
                                       Tell(std::move(event));
                                     });
}

// The cache goes before what its loads report events to.
Assistant::~Assistant() {
  upkeep_.reset();
  idle_trainer_ = std::jthread();  // Stopped, and waited for.
  adapters_.reset();
  cache_.reset();
}

absl::StatusOr<std::unique_ptr<Assistant>> Assistant::Open(Configuration configuration) {
  auto assistant = std::unique_ptr<Assistant>(new Assistant(std::move(configuration)));
  COTERIE_RETURN_IF_ERROR(assistant->OpenCatalog());
  COTERIE_RETURN_IF_ERROR(assistant->OpenRouter());
  COTERIE_RETURN_IF_ERROR(assistant->CheckBudget());
  COTERIE_RETURN_IF_ERROR(assistant->PinExperts());
  if (const std::string& path = assistant->configuration_.cache.request_log; !path.empty()) {
    COTERIE_ASSIGN_OR_RETURN(assistant->log_, RequestLog::Open(path));
  }
  assistant->OpenInteractions();
  assistant->OpenPrefixes();
  assistant->upkeep_ = std::make_unique<PeriodicTask>(
      kUpkeepPeriod, [assistant = assistant.get()] { assistant->Upkeep(); });
  return assistant;
}

std::shared_ptr<const ExpertCatalog> Assistant::Catalog() const {
  MutexLock lock(mutex_);
  return catalog_;
}

// An expert whose file cannot be used is left out with its reason, so that one bad file does not
// keep the others from answering.
absl::StatusOr<ExpertCatalog> Assistant::UsableExperts(std::vector<std::string>& problems,
                                                       Templates& templates) {
  COTERIE_ASSIGN_OR_RETURN(const ExpertCatalog listed, configuration_.Catalog());
  problems = listed.problems();
  std::vector<ExpertSpec> usable;
  for (const ExpertSpec& spec : listed.experts()) {
    source_->Register(spec.base_id, spec.base_path);
    absl::Status status = source_->Profile(spec.base_id).status();
    if (status.ok() && !spec.chat_template.empty()) {
      auto parsed = ChatTemplate::Parse(spec.chat_template, spec.name);
      status = parsed.status();
      if (parsed.ok()) templates[spec.name] = *std::move(parsed);
    }
    if (status.ok()) {
      usable.push_back(spec);
    } else {
      problems.push_back(absl::StrCat(spec.name, ": ", status.message()));
    }
  }
  return ExpertCatalog::FromSpecs(std::move(usable));
}

absl::Status Assistant::OpenCatalog() {
  COTERIE_ASSIGN_OR_RETURN(ExpertCatalog usable, UsableExperts(problems_, templates_));
  if (usable.experts().empty()) {
    return absl::NotFoundError(absl::StrCat(
        "there is no expert to answer; fetch one with `coterie pull smollm2-135m` or add a file "
        "with `coterie add FILE.gguf`: store=",
        configuration_.home,
        problems_.empty() ? "" : "; left out: ", absl::StrJoin(problems_, "; ")));
  }
  MutexLock lock(mutex_);
  catalog_ = std::make_shared<const ExpertCatalog>(std::move(usable));
  return absl::OkStatus();
}

absl::Status Assistant::PinExperts() {
  const std::shared_ptr<const ExpertCatalog> catalog = Catalog();
  for (const ExpertSpec& spec : catalog->experts()) {
    if (spec.pinned) COTERIE_RETURN_IF_ERROR(cache_->Pin(spec.base_id));
  }
  // Of experts that share a base, the one that stays longest decides.
  std::map<BaseId, absl::Duration> longest;
  for (const ExpertSpec& spec : catalog->experts()) {
    const absl::Duration its = spec.keep_alive.value_or(configuration_.cache.keep_alive);
    absl::Duration& kept = longest.try_emplace(spec.base_id, its).first->second;
    kept = std::max(kept, its);
  }
  for (const auto& [base, keep_alive] : longest) cache_->SetKeepAlive(base, keep_alive);
  return absl::OkStatus();
}

absl::Status Assistant::OpenRouter() {
  std::string path = configuration_.router_path;
  if (path.empty()) {
    COTERIE_ASSIGN_OR_RETURN(path, DefaultRouterPath());
  }
  COTERIE_ASSIGN_OR_RETURN(const int64_t bytes, Router::EstimateBytes(path));
  COTERIE_ASSIGN_OR_RETURN(router_bytes_, budget_.Reserve(Purpose::kRouter, bytes));
  COTERIE_ASSIGN_OR_RETURN(std::shared_ptr<const Router> router, Router::Load(path, &pool_));
  router_bytes_.ShrinkTo(std::min(router->memory_bytes(), router_bytes_.bytes()));
  router_ = std::make_unique<TaughtRouter>(std::move(router), budget_);
  return absl::OkStatus();
}

// What people wrote does not go to disk in plain text where their log does not.
void Assistant::OpenPrefixes() {
  if (configuration_.cache.prefix_disk_bytes == 0) return;
  const std::string& key_file = configuration_.learning.key_file;
  absl::StatusOr<std::string> key = std::string();
  if (!key_file.empty()) key = ReadKeyFile(key_file);
  if (key.ok()) {
    prefixes_.UseDisk(configuration_.cache.prefix_disk_bytes, *std::move(key));
  } else {
    problems_.push_back(
        absl::StrCat("prefixes of prompts are not kept on disk: ", key.status().message()));
  }
}

// Says at once that no expert fits, rather than at the first prompt.
absl::Status Assistant::CheckBudget() const {
  const ExpertTable table = BuildExpertTables(cache_->Snapshot()).all;
  const ExpertRow* smallest = nullptr;
  for (const ExpertRow& row : table) {
    if (row.fits) return absl::OkStatus();
    if (smallest == nullptr || row.bytes < smallest->bytes) smallest = &row;
  }
  if (smallest == nullptr) return absl::OkStatus();
  const BudgetSnapshot snapshot = budget_.Snapshot();
  return absl::ResourceExhaustedError(absl::StrCat(
      "the memory budget holds none of the experts: the smallest, ", smallest->name, ", needs ",
      FormatBytes(smallest->bytes), " beside the router's ", FormatBytes(router_bytes_.bytes()),
      ", the budget is ", FormatBytes(snapshot.limit_bytes)));
}

// A base model without a chat template continues text and answers nobody: it is asked by name, or
// where there is nothing else.
Assistant::ExpertTables Assistant::BuildExpertTables(const CacheSnapshot& cache) const {
  const std::shared_ptr<const ExpertCatalog> catalog = Catalog();
  const int64_t limit = budget_.Snapshot().limit_bytes - router_bytes_.bytes();
  ExpertTables tables;
  for (const ExpertSpec& spec : catalog->experts()) {
    ExpertRow row;
    row.name = spec.name;
    row.quality = spec.worth.quality;
    row.answer_seconds = spec.worth.answer_seconds;
    const absl::StatusOr<BaseProfile> profile = source_->Profile(spec.base_id);
    if (!profile.ok()) continue;  // Reported when the catalogue was opened.
    row.bytes = profile->weight_bytes + profile->tokenizer_bytes;
    row.load_ms = ExpectedLoadMs(cache.Find(spec.base_id), row.bytes);
    row.fits = row.bytes + ShortAnswerBytes(*profile) <= limit;
    if (profile->has_chat_template || !spec.chat_template.empty()) tables.answering.push_back(row);
    tables.all.push_back(std::move(row));
  }
  if (tables.answering.empty()) tables.answering = tables.all;
  return tables;
}

Residency Assistant::ResidentExperts(const CacheSnapshot& cache) const {
  const std::shared_ptr<const ExpertCatalog> catalog = Catalog();
  Residency residency;
  for (const ExpertSpec& spec : catalog->experts()) {
    const BaseResidency* const base = cache.Find(spec.base_id);
    if (base != nullptr && base->state == BaseState::kReady) residency.experts.push_back(spec.name);
  }
  return residency;
}

int64_t Assistant::ShortAnswerBytes(const BaseProfile& profile) const {
  const SessionShape shape = SessionShape::ForTokens(kShortConversationTokens);
  return shape.KvBytes(profile.spec) + ScratchBytes(profile.spec, shape);
}

int64_t Assistant::ScratchBytes(const ArchSpec& spec, const SessionShape& shape) const {
  return shape.ScratchBytes(spec, pool_.n_workers()) + Sampler::Bytes(spec.n_vocab) +
         (shape.ahead_tokens > 0 ? LookupDecoder::Bytes(shape.capacity_tokens) : 0);
}

absl::StatusOr<Route> Assistant::Decide(absl::string_view prompt) const {
  return RouteText(prompt, ConversationState());
}

absl::StatusOr<Route> Assistant::RouteText(absl::string_view text,
                                           const ConversationState& state) const {
  Route route;
  COTERIE_ASSIGN_OR_RETURN(route.domains, router_->Current()->Classify(text));
  if (configuration_.abstain_below && !route.domains.ranked.empty()) {
    route.domains.abstained =
        route.domains.ranked.front().probability < *configuration_.abstain_below;
  }
  const CacheSnapshot cache = cache_->Snapshot();
  COTERIE_ASSIGN_OR_RETURN(route.choice,
                           Dispatch(route.domains, BuildExpertTables(cache).answering,
                                    ResidentExperts(cache), state, configuration_.dispatch));
  route.expert = route.choice.expert;
  route.reason = route.choice.reason;
  return route;
}

absl::StatusOr<Route> Assistant::RouteRequest(const Request& request) const {
  if (request.expert.empty()) {
    return RouteText(AskedText(request.messages), StateOf(request.conversation));
  }
  COTERIE_RETURN_IF_ERROR(Catalog()->Find(request.expert).status());
  Route route;
  route.expert = request.expert;
  route.reason = "asked for by name";
  route.choice.expert = request.expert;
  route.choice.reason = route.reason;
  return route;
}

ConversationState Assistant::StateOf(const std::string& conversation) const {
  MutexLock lock(mutex_);
  const auto it = conversations_.find(conversation);
  return it == conversations_.end() ? ConversationState() : it->second.state;
}

void Assistant::Remember(const std::string& conversation, const Choice& choice) {
  if (conversation.empty()) return;
  MutexLock lock(mutex_);
  Conversation& entry = conversations_[conversation];
  entry.state = Advanced(entry.state, choice);
  entry.last_use = ++use_clock_;
  if (conversations_.size() <= kMaxConversations) return;
  conversations_.erase(std::min_element(
      conversations_.begin(), conversations_.end(),
      [](const auto& a, const auto& b) { return a.second.last_use < b.second.last_use; }));
}

std::vector<ExpertStatus> Assistant::Experts() const { return StatusesOf(cache_->Snapshot()); }

std::vector<ExpertStatus> Assistant::StatusesOf(const CacheSnapshot& cache) const {
  const std::shared_ptr<const ExpertCatalog> catalog = Catalog();
  const Residency residency = ResidentExperts(cache);
  const ExpertTable table = BuildExpertTables(cache).all;
  std::vector<ExpertStatus> experts;
  for (const ExpertSpec& spec : catalog->experts()) {
    ExpertStatus status{spec, residency.Contains(spec.name), false};
    for (const ExpertRow& row : table) {
      if (row.name == spec.name) status.fits = row.fits;
    }
    experts.push_back(std::move(status));
  }
  return experts;
}

AssistantStats Assistant::Stats() const {
  CacheStats cache = cache_->Stats();
  for (const BaseId& base : cache.churn.bases) {  // People know experts, not bases.
    absl::StrReplaceAll({{base, ExpertsOn(base)}}, &cache.churn.advice);
  }
  CacheSnapshot bases = cache_->Snapshot();
  std::vector<ExpertStatus> experts = StatusesOf(bases);
  return {budget_.Snapshot(), std::move(cache),     std::move(bases),
          std::move(experts), adapters_->Entries(), scheduler_.Stats(),
          batches_.Stats(),   prefixes_.Stats(),    {proposed_tokens_, lookup_tokens_},
          memory_is_short_};
}

std::vector<Event> Assistant::TakeEvents() {
  MutexLock lock(mutex_);
  std::vector<Event> events(std::make_move_iterator(events_.begin()),
                            std::make_move_iterator(events_.end()));
  events_.clear();
  return events;
}

std::string Assistant::ExpertsOn(const BaseId& base) const {
  const std::shared_ptr<const ExpertCatalog> catalog = Catalog();
  std::vector<absl::string_view> names;
  for (const ExpertSpec& spec : catalog->experts()) {
    if (spec.base_id == base) names.push_back(spec.name);
  }
  return absl::StrJoin(names, ", ");
}

void Assistant::OnCacheEvent(const CacheEvent& event) {
  const std::string expert = ExpertsOn(event.base);
  const std::string size = FormatBytes(event.bytes);
  Event told;
  told.expert = expert;
  told.bytes = event.bytes;
  switch (event.kind) {
    case CacheEvent::Kind::kLoading:
      told.kind = "loading";
      told.text =
          absl::StrCat("loading ", expert, ": ", FormatBytes(event.done_bytes), " of ", size);
      told.done_bytes = event.done_bytes;
      break;
    case CacheEvent::Kind::kLoaded:
      told.kind = "loaded";
      told.text = absl::StrCat("loaded ", expert, " (", size, ") in ",
                               absl::ToInt64Milliseconds(event.took), " ms");
      break;
    case CacheEvent::Kind::kEvicted:
      told.kind = "evicted";
      told.text = absl::StrCat("evicted ", expert, " (", event.why, ")");
      if (!event.for_base.empty()) {
        absl::StrAppend(&told.text, " for ", ExpertsOn(event.for_base), " (need ",
                        FormatBytes(event.need_bytes), ")");
      }
      told.reason = event.why;
      break;
    case CacheEvent::Kind::kLoadFailed:
      told.kind = "load_failed";
      told.text = absl::StrCat("could not load ", expert, ": ", event.status.message());
      break;
  }
  Tell(std::move(told));
}

void Assistant::Tell(Event event) {
  MutexLock lock(mutex_);
  events_.push_back(std::move(event));
  if (events_.size() > kMaxEvents) events_.pop_front();
}

}  // namespace coterie
