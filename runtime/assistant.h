#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <stop_token>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "absl/types/span.h"

#include "core/memory/memory_budget.h"
#include "core/threads/mutex.h"
#include "core/threads/worker_pool.h"
#include "experts/expert_cache.h"
#include "experts/expert_catalog.h"
#include "experts/file_base_source.h"
#include "experts/generation.h"
#include "lora/interaction_log.h"
#include "lora/nearest.h"
#include "router/dispatch.h"
#include "router/router.h"
#include "runtime/adapter_shelf.h"
#include "runtime/configuration.h"
#include "runtime/periodic_task.h"
#include "runtime/prefix_shelf.h"
#include "runtime/pressure_guard.h"
#include "runtime/request.h"
#include "runtime/request_log.h"
#include "runtime/request_scheduler.h"
#include "runtime/sequence_batches.h"
#include "runtime/taught_router.h"
#include "runtime/training.h"
#include "runtime/training_pause.h"

namespace coterie {

// How the weights came to be there.
enum class Residence : uint8_t { kHit, kJoined, kLoaded };
absl::string_view ResidenceName(Residence residence);  // "hit", "join", "load"

// Which expert answers and why: the domains, blind to memory, and the choice made of them.
struct Route {
  std::string expert;
  std::string reason;
  DomainScores domains;
  Choice choice;
};

struct Reply {
  std::string id;
  std::string expert;
  std::string adapter;  // The version that answered, "home@3"; empty: none.
  Route route;
  Generation generation;
  std::vector<std::string> examples;  // Ids of interactions shown to the expert, nearest first.
  Residence residence = Residence::kHit;
  int64_t bytes_loaded = 0;
  absl::Duration queue_time;        // Waiting for memory or for another load.
  absl::Duration load_time;         // Zero on a hit.
  absl::Duration first_token_time;  // From the call to the first token, everything included.
};

struct ExpertStatus {
  ExpertSpec spec;
  bool resident = false;
  bool fits = false;  // Its weights and a short conversation fit the budget on their own.
};

// What answers computed ahead because it might repeat something of the conversation.
struct LookupStats {
  int64_t proposed_tokens = 0;
  int64_t lookup_tokens = 0;  // Of those, the ones that came.
};

struct AssistantStats {
  BudgetSnapshot budget;
  CacheStats cache;
  CacheSnapshot bases;
  std::vector<ExpertStatus> experts;
  std::vector<AdapterShelf::Entry> adapters;  // Those in memory.
  RequestQueueStats queue;
  SequenceBatchStats passes;
  PrefixStats prefixes;
  LookupStats lookup;
  bool memory_is_short = false;  // The system is: see PressureGuard.
};

// Something that happened, mostly to memory, for people and logs.
struct Event {
  // "loading", "loaded", "evicted", "load_failed", "log_failed", "adapter_failed", "trained",
  // "training_failed"
  std::string kind;
  std::string expert;
  int64_t bytes = 0;
  int64_t done_bytes = 0;  // "loading": read so far.
  std::string text;        // One line for people.
  std::string reason;      // "evicted": the policy's reason in numbers.
};

// A conversation as the expert reads it: under its own system prompt, unless it begins with one.
std::vector<Message> MessagesFor(const ExpertSpec& spec, const std::vector<Message>& messages);

// The whole of coterie behind one object: routes a prompt to an expert, which is loaded inside the
// memory budget, and answers. Thread-safe: answers on different threads run at once as far as
// memory allows.
class Assistant {
 public:
  // Reads the model store, loads the router and opens no expert. kNotFound if there is no expert,
  // kResourceExhausted if the budget holds none of them, with the numbers; errors in files name
  // them.
  static absl::StatusOr<std::unique_ptr<Assistant>> Open(Configuration configuration);

  ~Assistant();

  // Routes, loads if need be, and answers; the sink gets the text as it is written.
  //   kInvalidArgument     no messages, text that is not UTF-8, options out of range
  //   kNotFound            the named expert or adapter does not exist
  //   kFailedPrecondition  the named adapter is one of another base, with both ids
  //   kOutOfRange          the prompt is longer than the expert's context; nothing is cut silently
  //   kResourceExhausted   the expert and this prompt can never fit the budget
  //   kUnavailable         too many requests wait already, with the numbers
  //   kDeadlineExceeded    its turn did not come or no memory became free in time
  //   kCancelled           cancelled before the first token (later, the reply says so)
  absl::StatusOr<Reply> Generate(const Request& request, TextSink sink, std::stop_token cancel);

  // What the user says of a reply, by its id; see InteractionLog::SetFeedback. A domain corrects
  // the router, and so does an answer that is accepted or edited after the user asked its expert by
  // name what another had answered before: prompts like it go to that expert's domain from now on.
  //   kFailedPrecondition  no log is kept
  //   kInvalidArgument     also a domain that the router does not know, naming those it does
  absl::Status GiveFeedback(absl::string_view id, Feedback feedback);

  // Erases an interaction, what the router learned from it, and every version of an adapter that
  // was trained on it: the current one is trained again without it, which takes as long as training
  // does, to the bytes that it would have had without it; or dropped if nothing is left to learn
  // from. Cancelled, the record is erased and adapters may still hold it: say it again.
  absl::Status Forget(absl::string_view id, std::stop_token cancel = {});

  // Trains an adapter on the feedback that an expert's answers got, beside answering, which goes
  // first. Published, as the next version, only if it is better on feedback that was held back; the
  // report says so either way. One training at a time. Where a request waits for memory, or the
  // system is short of it, training gives all of its own back within a step, its base included, and
  // goes on bit for bit when there is room again.
  //   kFailedPrecondition  no log is kept, or there is no feedback to learn from
  //   kNotFound            no such expert
  //   kResourceExhausted   it does not fit the budget beside the base, with the numbers
  //   kCancelled           what was done is kept: the same again goes on from there
  absl::StatusOr<TrainingReport> Train(const TrainingRequest& request, std::stop_token cancel);
  TrainingProgress training_progress() const;  // Of the training under way, or of the last one.

  // Null if none is kept.
  InteractionLog* interactions() const { return interactions_.get(); }

  // Finds the experts that adapters of the store make: each whose base is in the store is one. New
  // versions of adapters need no call: an answer takes the version that is current when it begins.
  absl::Status ReloadAdapters();

  // Decides only; loads nothing and changes nothing.
  absl::StatusOr<Route> Decide(absl::string_view prompt) const;

  // Idle experts beyond the new budget leave, busy ones as their answers end. kInvalidArgument, and
  // nothing changes, if it does not hold the router and the pinned experts.
  absl::Status SetMemoryBudget(int64_t bytes);
  AssistantStats Stats() const;
  std::vector<ExpertStatus> Experts() const;
  // Events since the last call, oldest first; the oldest are dropped beyond a few hundred.
  std::vector<Event> TakeEvents();

  const Configuration& configuration() const { return configuration_; }
  const std::vector<std::string>& problems() const { return problems_; }

 private:
  struct Conversation {
    ConversationState state;
    uint64_t last_use = 0;
  };
  class Answer;

  explicit Assistant(Configuration configuration);
  absl::Status OpenCatalog();
  // The experts whose files can be used; what is wrong with the others is added to `problems`.
  // Chat templates that replace the files' own, by expert.
  using Templates = std::map<std::string, std::unique_ptr<const ChatTemplate>>;
  absl::StatusOr<ExpertCatalog> UsableExperts(std::vector<std::string>& problems,
                                              Templates& templates);
  std::shared_ptr<const ExpertCatalog> Catalog() const;
  // What an answer of this expert is given with now; null: nothing.
  absl::StatusOr<DeltaSnapshot> AdapterFor(const Request& request, const ExpertSpec& spec,
                                           const BaseProfile& profile);
  absl::Status OpenRouter();
  absl::Status CheckBudget() const;
  absl::Status PinExperts();
  void OpenInteractions();
  void OpenPrefixes();

  absl::Status AnswerInTurn(const Request& request, const ExpertSpec& spec, absl::Time start,
                            TextSink sink, std::stop_token cancel, Reply& reply,
                            std::vector<Message>& asked);
  std::vector<Interaction> Recall(const Request& request, const ExpertSpec& spec);
  void Log(const Request& request, const ExpertSpec& spec, absl::Time start,
           std::vector<Message> asked, const Reply& reply);
  // Whose interactions belong to an expert that answers with this adapter (empty: none): its own,
  // the adapter's, and those of the experts that the adapter's current version was trained from.
  // Training and retrieval both go by it.
  std::vector<std::string> ExpertsBehind(const ExpertSpec& spec, const std::string& adapter) const;
  absl::StatusOr<std::vector<Interaction>> InteractionsToLearnFrom(
      const std::vector<std::string>& experts) const;
  absl::StatusOr<TrainingReport> TrainOn(absl::Span<const Interaction> interactions,
                                         const std::string& adapter_name,
                                         const TrainingRequest& request, bool judge,
                                         std::stop_token cancel);
  absl::StatusOr<AdapterTrainingResult> TrainInStretches(const BaseId& base,
                                                         const AdapterTrainingPlan& plan,
                                                         Lease& lease,
                                                         const std::stop_token& cancel);
  absl::StatusOr<Lease> ResumeTraining(const BaseId& base, int64_t bytes,
                                       const std::stop_token& cancel);
  void NoteTraining(const TrainingProgress& progress);
  TrainingRequest RequestForIdle(const std::string& expert) const;
  void TrainIfIdle();
  absl::Status ForgetInAdapters(absl::string_view id, std::stop_token cancel);
  absl::Status RetrainWithout(const std::string& adapter, const AdapterLedger& ledger,
                              absl::string_view id, std::stop_token cancel);
  absl::StatusOr<std::string> ImpliedDomain(const Interaction& interaction) const;
  absl::Status TeachRouter();
  void Tell(Event event);

  absl::StatusOr<Route> RouteRequest(const Request& request) const;
  absl::StatusOr<Route> RouteText(absl::string_view text, const ConversationState& state) const;
  // What a decision knows of the experts; `cache` is what it holds, looked at once.
  struct ExpertTables {
    ExpertTable all;
    ExpertTable answering;  // Those that have a chat template; all, if none has one.
  };
  ExpertTables BuildExpertTables(const CacheSnapshot& cache) const;
  Residency ResidentExperts(const CacheSnapshot& cache) const;
  std::vector<ExpertStatus> StatusesOf(const CacheSnapshot& cache) const;
  int64_t ShortAnswerBytes(const BaseProfile& profile) const;
  int64_t ScratchBytes(const ArchSpec& spec, const SessionShape& shape) const;
  std::string ExpertsOn(const BaseId& base) const;
  ConversationState StateOf(const std::string& conversation) const;
  void Remember(const std::string& conversation, const Choice& choice);
  void OnCacheEvent(const CacheEvent& event);
  Warmth WarmthOf(const BaseId& base, const CacheSnapshot& cache) const;
  // WarmthOf with what the cache holds now.
  RequestQueue::Warmths LookAtCache() const;
  void NoteSecondChoice(const Route& route);
  void Upkeep();
  void PrefetchSecondChoice();

  Configuration configuration_;
  const absl::Time opened_ = absl::Now();
  std::vector<std::string> problems_;
  WorkerPool pool_;
  MemoryBudget budget_;
  HeadScreens screens_;
  SequenceBatches batches_;
  std::map<std::string, std::unique_ptr<const ChatTemplate>> templates_;  // Overrides, by expert.
  std::unique_ptr<TaughtRouter> router_;
  Reservation router_bytes_;                      // Without what was taught.
  std::unique_ptr<InteractionLog> interactions_;  // Null: none is kept.
  std::unique_ptr<NearestInteractions> nearest_;  // Null without a log.
  std::atomic<int64_t> taught_change_{0};         // Of the log, when the router last read it.
  std::atomic<bool> told_of_log_{false};          // That something could not be logged.
  std::unique_ptr<FileBaseSource> source_;
  PrefixShelf prefixes_;
  ExpendableMemories expendable_;  // Screens, which are quickly made again, before prefixes.
  std::unique_ptr<ExpertCache> cache_;
  std::unique_ptr<AdapterShelf> adapters_;
  RequestScheduler scheduler_;
  std::unique_ptr<RequestLog> log_;  // Null: none is kept.
  PressureGuard guard_;              // Of the upkeep's thread.
  std::atomic<bool> memory_is_short_{false};
  std::atomic<uint64_t> next_reply_{1};
  std::atomic<int64_t> lookup_tokens_{0};
  std::atomic<int64_t> proposed_tokens_{0};

  Mutex training_mutex_;  // Held for a whole training; before mutex_.
  TrainingPause training_pause_;
  std::atomic<bool> is_idle_training_{false};
  int64_t idle_tried_change_ = 0;  // Of the log; of the upkeep's thread.

  mutable Mutex mutex_;
  TrainingProgress training_progress_ ABSL_GUARDED_BY(mutex_);
  std::shared_ptr<const ExpertCatalog> catalog_ ABSL_GUARDED_BY(mutex_);  // Replaced as a whole.
  std::map<std::string, Conversation> conversations_ ABSL_GUARDED_BY(mutex_);
  uint64_t use_clock_ ABSL_GUARDED_BY(mutex_) = 0;
  std::deque<Event> events_ ABSL_GUARDED_BY(mutex_);
  BaseId second_choice_ ABSL_GUARDED_BY(mutex_);  // To be prefetched; empty: nothing.
  std::unique_ptr<PeriodicTask> upkeep_;
  std::jthread idle_trainer_;  // Started by the upkeep.
};

}  // namespace coterie
