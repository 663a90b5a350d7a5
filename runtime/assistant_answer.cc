// How Assistant answers one request.

#include <algorithm>
#include <memory>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

#include "core/base/status_macros.h"
#include "experts/session.h"
#include "runtime/assistant.h"

namespace coterie {
namespace {

// A guess at the length of a prompt that only its expert's tokenizer can measure, used to reserve
// KV before the expert is there: half a token a byte is above what these vocabularies need for any
// language but a few, and a short guess only costs a second look at the cache.
int64_t GuessPromptTokens(absl::Span<const Message> messages) {
  int64_t tokens = 64;  // What a template adds around a conversation.
  for (const Message& message : messages) {
    tokens += 8 + static_cast<int64_t>(message.content.size()) / 2;
  }
  return tokens;
}

Residence ResidenceOf(LeaseOrigin::How how) {
  switch (how) {
    case LeaseOrigin::How::kHit:
      return Residence::kHit;
    case LeaseOrigin::How::kJoined:
      return Residence::kJoined;
    case LeaseOrigin::How::kLoaded:
      return Residence::kLoaded;
  }
  return Residence::kHit;
}

}  // namespace

absl::string_view ResidenceName(Residence residence) {
  switch (residence) {
    case Residence::kHit:
      return "hit";
    case Residence::kJoined:
      return "join";
    case Residence::kLoaded:
      return "load";
  }
  return "unknown";
}

std::vector<Message> MessagesFor(const ExpertSpec& spec, const std::vector<Message>& messages) {
  std::vector<Message> whole;
  if (!spec.system_prompt.empty() && (messages.empty() || messages.front().role != "system")) {
    whole.push_back({"system", spec.system_prompt, ""});
  }
  whole.insert(whole.end(), messages.begin(), messages.end());
  return whole;
}

// One request on its way from its route to its reply.
class Assistant::Answer {
 public:
  Answer(Assistant& assistant, const Request& request, const ExpertSpec& spec,
         const BaseProfile& profile, DeltaSnapshot adapter, std::vector<Interaction> examples)
      : assistant_(assistant),
        request_(request),
        spec_(spec),
        profile_(profile),
        adapter_(std::move(adapter)),
        messages_(MessagesFor(spec, request.messages)),
        examples_(std::move(examples)) {
    options_.sampling = request.sampling.Over(spec.sampling.value_or(SamplingOptions()));
    options_.max_tokens = request.max_tokens;
    options_.stop = request.stop;
    options_.lookup = request.lookup.value_or(assistant.configuration_.lookup);
    const auto it = assistant.templates_.find(spec.name);
    if (it != assistant.templates_.end()) template_ = it->second.get();
    context_tokens_ = profile.spec.context_tokens;
    if (spec.context_tokens > 0)
      context_tokens_ = std::min<int64_t>(context_tokens_, spec.context_tokens);
  }

  // Acquires memory for the prompt as it really is: a first lease is sized by a guess, and if the
  // tokenizer finds the prompt longer, that lease is given back before a larger one is asked for,
  // so that no request waits while it holds memory.
  absl::Status Acquire(std::stop_token cancel) {
    COTERIE_RETURN_IF_ERROR(options_.sampling.Validate());
    int64_t n_prompt = GuessPromptTokens(messages_);
    if (!examples_.empty()) n_prompt += assistant_.configuration_.learning.retrieval_tokens;
    bool exact = false;
    while (true) {
      absl::StatusOr<Lease> lease =
          assistant_.cache_->Acquire(NeedFor(n_prompt), request_.deadline, cancel);
      if (absl::IsResourceExhausted(lease.status()) && !exact && n_prompt > kLeastPromptTokens) {
        n_prompt = kLeastPromptTokens;  // The guess may have been the problem.
        continue;
      }
      if (absl::IsResourceExhausted(lease.status()) && !examples_.empty()) {
        examples_.clear();  // The prompt alone may fit.
        n_prompt = kLeastPromptTokens;
        exact = false;
        continue;
      }
      COTERIE_RETURN_IF_ERROR(lease.status());
      COTERIE_RETURN_IF_ERROR(EncodePrompt(ExpertOf(*lease)));
      const int64_t n_tokens = static_cast<int64_t>(prompt_.ids.size());
      COTERIE_RETURN_IF_ERROR(CheckContext(n_tokens));
      if (n_tokens <= n_prompt) {
        lease_ = *std::move(lease);
        break;
      }
      n_prompt = n_tokens;
      exact = true;
    }
    const SessionShape shape = ShapeFor(static_cast<int64_t>(prompt_.ids.size()));
    lease_.kv().ShrinkTo(shape.KvBytes(profile_.spec));
    lease_.scratch().ShrinkTo(assistant_.ScratchBytes(profile_.spec, shape));
    request_bytes_ = lease_.kv().bytes() + lease_.scratch().bytes();
    return absl::OkStatus();
  }

  absl::StatusOr<Generation> Write(TextSink sink, std::stop_token cancel) {
    // Not while it waits for memory, which training may hold.
    const WorkerPool::Foreground answering(assistant_.pool_);
    const Expert& expert = ExpertOf(lease_);
    const std::shared_ptr<SequenceBatch> batch = assistant_.batches_.Of(spec_.base_id, expert);
    std::optional<Session> session(std::in_place, expert, assistant_.pool_,
                                   ShapeFor(static_cast<int64_t>(prompt_.ids.size())), *batch,
                                   adapter_);
    const absl::Time start = absl::Now();
    COTERIE_ASSIGN_OR_RETURN(const PrefixShelf::Place place, PlaceOfPrefixes(batch->activations()));
    if (request_.reuse) assistant_.prefixes_.TakeUp(place, prompt_.ids, session->kv());
    const absl::Duration take_up_time = absl::Now() - start;
    COTERIE_ASSIGN_OR_RETURN(
        Generation generation,
        coterie::Generate(*session, prompt_.ids, options_, sink, std::move(cancel)));
    generation.prefill_time += take_up_time;
    generation.first_token_time += take_up_time;
    if (!request_.reuse) return generation;
    std::vector<TokenId> tokens = prompt_.ids;
    tokens.insert(tokens.end(), generation.tokens.begin(), generation.tokens.end());
    tokens.resize(static_cast<size_t>(session->n_tokens()));  // The last one drawn is not in it.
    // Nobody waits for its next token any more, and there may be room for prefixes where its
    // scratch was.
    const KvCache kv = std::move(*session).TakeKv();
    session.reset();
    lease_.scratch().Release();
    assistant_.prefixes_.Keep(place, tokens, kv, /*on_disk=*/request_.log);
    return generation;
  }

  const LeaseOrigin& origin() const { return lease_.origin(); }
  int64_t request_bytes() const { return request_bytes_; }
  std::vector<Message> TakeMessages() { return std::move(messages_); }
  std::vector<std::string> ExampleIds() const {
    std::vector<std::string> ids;
    for (const Interaction& example : examples_) ids.push_back(example.id);
    return ids;
  }

 private:
  static constexpr int64_t kLeastPromptTokens = 32;

  static const Expert& ExpertOf(const Lease& lease) {
    return static_cast<const Expert&>(lease.model());
  }

  // The files may have changed since the request came in, but not since their base was loaded.
  absl::StatusOr<PrefixShelf::Place> PlaceOfPrefixes(Activations activations) const {
    COTERIE_ASSIGN_OR_RETURN(const BaseProfile loaded, assistant_.source_->Profile(spec_.base_id));
    return assistant_.prefixes_.PlaceFor(spec_.base_id, loaded.version, adapter_.get(),
                                         activations);
  }

  // With as many examples, the nearest first, as their budget and the context have room for.
  absl::Status EncodePrompt(const Expert& expert) {
    COTERIE_ASSIGN_OR_RETURN(prompt_, EncodeConversation(expert, messages_, template_));
    const int64_t n_plain = static_cast<int64_t>(prompt_.ids.size());
    const int64_t n_allowed =
        std::min(n_plain + assistant_.configuration_.learning.retrieval_tokens,
                 context_tokens_ - options_.max_tokens);
    for (; !examples_.empty(); examples_.pop_back()) {
      absl::StatusOr<Encoding> with =
          EncodeConversation(expert, WithExamples(messages_, examples_), template_);
      if (!with.ok() || static_cast<int64_t>(with->ids.size()) > n_allowed) continue;
      prompt_ = *std::move(with);
      break;
    }
    return absl::OkStatus();
  }

  SessionShape ShapeFor(int64_t n_prompt) const {
    const int64_t n_tokens = n_prompt + std::max<int64_t>(1, options_.max_tokens);
    SessionShape shape =
        SessionShape::ForTokens(std::min(context_tokens_, n_tokens), adapter_.get());
    shape.chunk_tokens = std::min(shape.chunk_tokens, std::max<int64_t>(1, n_prompt));
    if (!options_.lookup) shape.ahead_tokens = 0;
    return shape;
  }

  Need NeedFor(int64_t n_prompt) const {
    const SessionShape shape = ShapeFor(n_prompt);
    return {spec_.base_id, shape.KvBytes(profile_.spec),
            assistant_.ScratchBytes(profile_.spec, shape)};
  }

  absl::Status CheckContext(int64_t n_tokens) const {
    if (n_tokens < context_tokens_) return absl::OkStatus();
    return absl::OutOfRangeError(absl::StrCat(
        "the prompt is longer than the expert's context; shorten it or choose another expert: "
        "prompt_tokens=",
        n_tokens, ", context_tokens=", context_tokens_, ", expert=", spec_.name));
  }

  Assistant& assistant_;
  const Request& request_;
  const ExpertSpec& spec_;
  const BaseProfile& profile_;
  const DeltaSnapshot adapter_;  // Null: none.
  GenerationOptions options_;
  const ChatTemplate* template_ = nullptr;  // Instead of the file's own.
  std::vector<Message> messages_;
  std::vector<Interaction> examples_;  // Nearest first; those that do not fit are dropped.
  int64_t context_tokens_ = 0;
  Encoding prompt_;
  Lease lease_;
  int64_t request_bytes_ = 0;  // KV and scratch.
};

absl::StatusOr<Reply> Assistant::Generate(const Request& request, TextSink sink,
                                          std::stop_token cancel) {
  const absl::Time start = absl::Now();
  if (request.messages.empty()) {
    return absl::InvalidArgumentError("there is no message to answer");
  }
  if (request.max_tokens < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("max_tokens is negative: max_tokens=", request.max_tokens));
  }
  Reply reply;
  COTERIE_ASSIGN_OR_RETURN(reply.route, RouteRequest(request));
  reply.expert = reply.route.expert;
  const std::shared_ptr<const ExpertCatalog> catalog = Catalog();  // Holds the expert.
  COTERIE_ASSIGN_OR_RETURN(const ExpertSpec* spec, catalog->Find(reply.expert));
  std::vector<Message> asked;
  COTERIE_RETURN_IF_ERROR(
      AnswerInTurn(request, *spec, start, sink, std::move(cancel), reply, asked));
  Remember(request.conversation, reply.route.choice);
  NoteSecondChoice(reply.route);
  Log(request, *spec, start, std::move(asked), reply);
  return reply;
}

// When it returns, turn and memory are given back.
absl::Status Assistant::AnswerInTurn(const Request& request, const ExpertSpec& spec,
                                     absl::Time start, TextSink sink, std::stop_token cancel,
                                     Reply& reply, std::vector<Message>& asked) {
  COTERIE_ASSIGN_OR_RETURN(const BaseProfile profile, source_->Profile(spec.base_id));
  std::vector<Interaction> examples = Recall(request, spec);
  const absl::Time in_line = absl::Now();
  COTERIE_ASSIGN_OR_RETURN(
      RequestScheduler::Turn turn,
      scheduler_.Enter(spec.base_id, request.priority, request.deadline, cancel));
  const absl::Duration turn_time = absl::Now() - in_line;
  COTERIE_ASSIGN_OR_RETURN(DeltaSnapshot adapter, AdapterFor(request, spec, profile));
  if (adapter != nullptr) reply.adapter = adapter->version();
  Answer answer(*this, request, spec, profile, std::move(adapter), std::move(examples));
  COTERIE_RETURN_IF_ERROR(answer.Acquire(cancel));
  turn.NoteGranted();
  const absl::Duration until_prefill = absl::Now() - start;
  COTERIE_ASSIGN_OR_RETURN(reply.generation, answer.Write(sink, cancel));
  lookup_tokens_ += reply.generation.n_lookup_tokens;
  proposed_tokens_ += reply.generation.n_proposed_tokens;
  const LeaseOrigin& origin = answer.origin();
  reply.id = absl::StrCat(absl::Hex(absl::ToUnixNanos(opened_)), "-", next_reply_.fetch_add(1));
  reply.residence = ResidenceOf(origin.how);
  reply.bytes_loaded = origin.loaded_bytes;
  reply.load_time = origin.load_time;
  reply.queue_time =
      turn_time + std::max(absl::ZeroDuration(), origin.wait_time - origin.load_time);
  reply.first_token_time = until_prefill + reply.generation.first_token_time;
  if (log_ != nullptr) {
    log_->Append({.arrival = start,
                  .base = ExpertsOn(spec.base_id),
                  .base_bytes = profile.weight_bytes + profile.tokenizer_bytes,
                  .kv_bytes = answer.request_bytes(),
                  .load_time = reply.load_time,
                  .hold_time = absl::Now() - start - until_prefill});
  }
  reply.examples = answer.ExampleIds();
  asked = answer.TakeMessages();
  return absl::OkStatus();
}

}  // namespace coterie
