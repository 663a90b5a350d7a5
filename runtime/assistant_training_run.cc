// How Assistant runs one training: beside answers, giving its memory to whoever needs it.

#include <algorithm>
#include <set>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

#include "core/base/status_macros.h"
#include "runtime/assistant.h"
#include "runtime/training_ledger.h"
#include "runtime/training_plan.h"

namespace coterie {
namespace {

// Between two looks whether there is room again.
constexpr absl::Duration kLookForRoom = absl::Milliseconds(50);

const Expert& ExpertOf(const Lease& lease) { return static_cast<const Expert&>(lease.model()); }

}  // namespace

void Assistant::NoteTraining(const TrainingProgress& progress) {
  MutexLock lock(mutex_);
  training_progress_ = progress;
}

// Holds the base of a training that was paused once there is room for it and for `bytes` beside it:
// free, or, when nobody has asked for a while, held by idle experts.
absl::StatusOr<Lease> Assistant::ResumeTraining(const BaseId& base, int64_t bytes,
                                                const std::stop_token& cancel) {
  while (!cancel.stop_requested()) {
    const bool is_quiet = scheduler_.IdleFor() >= configuration_.learning.resume_after;
    const bool is_wanted = memory_is_short_ || cache_->Stats().n_waiting > 0;
    if (!is_wanted && (is_quiet || LookAtCache()(base) != Warmth::kSwitch)) {
      absl::StatusOr<Lease> lease = cache_->Acquire({base, 0, 0}, absl::InfiniteFuture(), cancel);
      const Charge charge{Purpose::kTraining, bytes};
      const absl::Status room = !lease.ok() ? lease.status()
                                : is_quiet  ? budget_.ReserveAll({&charge, 1}, *cache_).status()
                                            : budget_.ReserveAll({&charge, 1}).status();
      if (room.ok()) return lease;
      if (absl::IsResourceExhausted(room)) return room;  // The budget was lowered meanwhile.
    }
    absl::SleepFor(kLookForRoom);
  }
  return absl::CancelledError("training was stopped");
}

// One training from its plan, in as many stretches as it takes. Afterwards `lease` holds its base.
absl::StatusOr<AdapterTrainingResult> Assistant::TrainInStretches(const BaseId& base,
                                                                  const AdapterTrainingPlan& plan,
                                                                  Lease& lease,
                                                                  const std::stop_token& cancel) {
  int64_t bytes = 0;  // That it held.
  for (int64_t n_pauses = 0;; ++n_pauses) {
    TrainingProgress last;
    std::stop_source stretch;
    const std::stop_callback forward(cancel, [&stretch] { stretch.request_stop(); });
    training_pause_.Begin(stretch);
    absl::StatusOr<AdapterTrainingResult> result = TrainAdapter(
        ExpertOf(lease), pool_, budget_, plan,
        [&](const TrainingProgress& progress) {
          if (progress.memory_bytes > 0) last = progress;
          NoteTraining(progress);
        },
        stretch.get_token());
    const bool was_asked = training_pause_.End();
    // Between two stretches others may take what it had been given.
    const bool lost_room = n_pauses > 0 && absl::IsUnavailable(result.status());
    const bool is_paused = !cancel.stop_requested() &&
                           ((was_asked && absl::IsCancelled(result.status())) || lost_room);
    if (!is_paused) return result;
    last.phase = TrainingProgress::Phase::kPaused;
    bytes = std::max(bytes, std::exchange(last.memory_bytes, 0));
    NoteTraining(last);
    lease = Lease();
    COTERIE_ASSIGN_OR_RETURN(lease, ResumeTraining(base, bytes, cancel));
  }
}

// Trains on these interactions and publishes what the gate lets pass; without `judge`, whatever
// came out, because what it replaces has to go.
absl::StatusOr<TrainingReport> Assistant::TrainOn(absl::Span<const Interaction> interactions,
                                                  const std::string& adapter_name,
                                                  const TrainingRequest& request, bool judge,
                                                  std::stop_token cancel) {
  COTERIE_RETURN_IF_ERROR(CheckAdapterName(adapter_name));
  MutexLock one_at_a_time(training_mutex_);
  const std::shared_ptr<const ExpertCatalog> catalog = Catalog();
  COTERIE_ASSIGN_OR_RETURN(const ExpertSpec* spec, catalog->Find(request.expert));
  COTERIE_ASSIGN_OR_RETURN(Lease lease,
                           cache_->Acquire({spec->base_id, 0, 0}, absl::InfiniteFuture(), cancel));
  const auto it = templates_.find(spec->name);
  const ChatTemplate* chat_template =
      it != templates_.end() ? it->second.get() : ExpertOf(lease).chat_template();
  COTERIE_ASSIGN_OR_RETURN(TrainingMaterial material,
                           PrepareTraining(ExpertOf(lease), chat_template, interactions, request,
                                           pool_, budget_, cancel));
  const TrainingSet& set = material.set;
  AdapterTrainingPlan& plan = material.plan;
  plan.checkpoint_path = absl::StrCat(configuration_.home, "/training-", adapter_name, ".state");
  AdapterStore& store = adapters_->store();
  const absl::StatusOr<StoredAdapter> incumbent = store.Current(adapter_name);
  if (incumbent.ok()) plan.incumbent = ServedDeltas(incumbent->adapter, ExpertOf(lease).spec());

  TrainingReport report;
  report.expert = request.expert;
  report.n_examples = static_cast<int64_t>(set.train.size());
  report.n_held_out = static_cast<int64_t>(set.held_out.size());
  report.left_out = set.left_out;
  COTERIE_ASSIGN_OR_RETURN(report.result, TrainInStretches(spec->base_id, plan, lease, cancel));
  for (const std::string& name : judge ? ExpertsIn(interactions) : std::set<std::string>()) {
    COTERIE_RETURN_IF_ERROR(interactions_->MarkTrained(name, set.through_change));
  }
  std::vector<LinearDelta> deltas = std::exchange(report.result.deltas, {});
  if (judge && request.n_report_cases > 0) {
    ShownAnswersOptions options;
    options.max_example_tokens = configuration_.learning.retrieval_tokens;
    ShownAnswers shown(interactions, set, ExpertOf(lease).tokenizer(), chat_template, options);
    const std::vector<HeldOutCase> cases =
        MakeHeldOutCases(set, shown, static_cast<size_t>(request.n_report_cases));
    COTERIE_ASSIGN_OR_RETURN(const DeltaSnapshot candidate,
                             LinearDeltaSet::Create(ExpertOf(lease).spec(), "candidate", deltas));
    // Whether it can be measured or not decides nothing.
    report.compared = MeasureHeldOut(ExpertOf(lease), *candidate, cases, pool_, budget_, cancel)
                          .value_or(HeldOutReport());
  }
  if (judge && !report.result.gate.promote) return report;

  Adapter adapter;
  adapter.name = adapter_name;
  adapter.base =
      IdentityOf(ExpertOf(lease), spec->base_id, spec->adapter.empty() ? spec->name : "");
  adapter.rslora = request.options.rslora;
  adapter.deltas = DeltasFromServed(std::move(deltas), ExpertOf(lease).spec());
  const AdapterLedger ledger = LedgerOf(set, interactions, request, report);
  COTERIE_ASSIGN_OR_RETURN(const int64_t version, store.Publish(adapter, ledger));
  report.adapter = AdapterLabel(adapter_name, version);
  COTERIE_RETURN_IF_ERROR(interactions_->MarkInAdapter(ledger.interactions));
  COTERIE_RETURN_IF_ERROR(ReloadAdapters());
  return report;
}

}  // namespace coterie
