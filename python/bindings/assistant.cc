// coterie.Assistant, its replies, routes and streams.

#include "runtime/assistant.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "pybind11/stl.h"

#include "core/base/byte_size.h"
#include "python/bindings/bindings.h"
#include "python/bindings/gil.h"
#include "python/bindings/native_thread.h"
#include "python/bindings/reply_stream.h"
#include "python/bindings/training.h"

namespace py = pybind11;

namespace coterie {
namespace {

double Milliseconds(absl::Duration duration) { return absl::ToDoubleMilliseconds(duration); }

Fields RouteFields(const Route& route) {
  Fields d;
  d["expert"] = route.expert;
  d["reason"] = route.reason;
  py::dict probabilities;
  for (const Score& score : route.domains.ranked) {
    probabilities[py::str(score.domain)] = score.probability;
  }
  d["probabilities"] = probabilities;
  d["abstained"] = route.domains.abstained;
  py::dict explanation;
  explanation["summary"] = route.domains.why.summary;
  explanation["tier"] = route.domains.why.tier;
  explanation["margin"] = route.domains.why.margin;
  explanation["decided_by"] = std::string(DecidedByName(route.choice.decided_by));
  py::list scores;
  for (const ExpertScore& score : route.choice.scores) {
    py::dict row;
    row["expert"] = score.expert;
    row["expected_quality"] = score.expected_quality;
    row["expected_seconds"] = score.expected_seconds;
    row["time_cost"] = score.time_cost;
    row["residency_bonus"] = score.residency_bonus;
    row["sticky_bonus"] = score.sticky_bonus;
    row["fits"] = score.fits;
    scores.append(row);
  }
  explanation["scores"] = scores;
  explanation["router_version"] = route.domains.router_version;
  d["explanation"] = explanation;
  return d;
}

py::object LogprobsObject(const Generation& generation) {
  if (generation.logprobs.empty()) return py::none();
  py::list tokens;
  for (const TokenLogprobs& token : generation.logprobs) {
    py::dict row;
    row["token"] = TextFrom(token.text);
    row["bytes"] = py::bytes(token.text);
    row["logprob"] = token.logprob;
    py::list top;
    for (const auto& [text, logprob] : token.top) {
      top.append(py::make_tuple(TextFrom(text), py::bytes(text), logprob));
    }
    row["top"] = top;
    tokens.append(row);
  }
  return tokens;
}

Fields ReplyFields(const Reply& reply) {
  const Generation& generation = reply.generation;
  Fields d;
  d["id"] = reply.id;
  d["text"] = TextFrom(generation.text);
  d["expert"] = reply.expert;
  d["adapter"] = reply.adapter;
  d["finish_reason"] = std::string(FinishReasonName(generation.finish_reason));
  d["examples"] = reply.examples;
  d["route"] = RouteFields(reply.route);
  py::dict usage;
  usage["prompt_tokens"] = generation.n_prompt_tokens;
  usage["completion_tokens"] = generation.n_tokens;
  usage["cached_tokens"] = generation.n_cached_tokens;
  usage["lookup_tokens"] = generation.n_lookup_tokens;
  d["usage"] = usage;
  py::dict timings;
  timings["how"] = std::string(ResidenceName(reply.residence));
  timings["queue_ms"] = Milliseconds(reply.queue_time);
  timings["load_ms"] = Milliseconds(reply.load_time);
  timings["prefill_ms"] = Milliseconds(generation.prefill_time);
  timings["first_token_ms"] = Milliseconds(reply.first_token_time);
  timings["decode_tokens_per_second"] = generation.decode_tokens_per_second();
  d["timings"] = timings;
  d["logprobs"] = LogprobsObject(generation);
  return d;
}

Fields ExpertFields(const ExpertStatus& status) {
  Fields d;
  d["name"] = status.spec.name;
  d["path"] = status.spec.base_path;
  d["bytes"] = status.spec.bytes;
  d["base"] = status.spec.base_id;
  d["adapter"] = status.spec.adapter;
  d["quality"] = status.spec.worth.quality;
  d["answer_seconds"] = status.spec.worth.answer_seconds;
  d["context_tokens"] = status.spec.context_tokens;
  d["pinned"] = status.spec.pinned;
  d["resident"] = status.resident;
  d["fits"] = status.fits;
  return d;
}

py::object SecondsOrNone(absl::Duration duration) {
  if (duration == absl::InfiniteDuration()) return py::none();
  return py::float_(absl::ToDoubleSeconds(duration));
}

// Counts since the start.
Fields CounterFields(const AssistantStats& stats) {
  const CacheStats& cache = stats.cache;
  Fields d;
  d["loads"] = cache.n_loads;
  d["failed_loads"] = cache.n_failed_loads;
  d["cancelled_loads"] = cache.n_cancelled_loads;
  d["stalled_loads"] = cache.n_stalled_loads;
  d["reloads"] = cache.n_reloads;
  d["hits"] = cache.n_hits;
  d["joins"] = cache.n_joins;
  d["prefetches"] = cache.n_prefetches;
  d["prefetch_hits"] = cache.n_prefetch_hits;
  d["prefetches_wasted"] = cache.n_prefetch_wasted;
  d["prefetch_bytes_wasted"] = cache.prefetch_wasted_bytes;
  d["evictions"] = cache.n_evictions;
  d["waits"] = cache.n_waits;
  d["timeouts"] = cache.n_timeouts;
  d["cancels"] = cache.n_cancels;
  d["never_fits"] = cache.n_never_fits;
  d["bytes_loaded"] = cache.loaded_bytes;
  d["bytes_evicted"] = cache.evicted_bytes;
  d["freed_shortfalls"] = cache.n_freed_shortfalls;
  d["load_ms"] = Milliseconds(cache.load_time);
  d["memory_wait_ms"] = Milliseconds(cache.wait_time);
  return d;
}

Fields EvictionFields(const CacheStats& cache) {
  Fields d;
  py::dict causes;
  for (int i = 0; i < kEvictionCauseCount; ++i) {
    causes[py::str(std::string(EvictionCauseName(static_cast<EvictionCause>(i))))] =
        cache.n_evictions_by_cause[static_cast<size_t>(i)];
  }
  d["by_cause"] = causes;
  const double n = static_cast<double>(std::max<int64_t>(1, cache.n_evictions));
  d["mean_age_s"] = absl::ToDoubleSeconds(cache.age_at_eviction) / n;
  return d;
}

// Requests that wait for their turn, and leases and waits for memory behind them.
Fields QueueFields(const AssistantStats& stats) {
  Fields d;
  d["waiting"] = stats.queue.n_waiting;
  d["running"] = stats.queue.n_running;
  d["oldest_wait_ms"] = Milliseconds(stats.queue.oldest_wait);
  d["started"] = stats.queue.n_started;
  d["rejected"] = stats.queue.n_rejected;
  d["batched"] = stats.queue.n_batched;
  d["queue_ms"] = Milliseconds(stats.queue.queue_time);
  d["passes"] = stats.passes.n_passes;
  d["shared_passes"] = stats.passes.n_shared_passes;
  d["sequences_per_pass"] = static_cast<double>(stats.passes.n_sequences) /
                            static_cast<double>(std::max<int64_t>(1, stats.passes.n_passes));
  d["waiting_for_memory"] = stats.cache.n_waiting;
  d["oldest_memory_wait_ms"] = Milliseconds(stats.cache.oldest_wait);
  d["leases"] = stats.cache.n_leases;
  d["oldest_lease_ms"] = Milliseconds(stats.cache.oldest_lease);
  return d;
}

// What prompts began with, kept for the next.
Fields PrefixFields(const PrefixStats& prefixes) {
  Fields d;
  d["hits"] = prefixes.n_hits;
  d["misses"] = prefixes.n_misses;
  d["cached_tokens"] = prefixes.cached_tokens;
  d["disk_tokens"] = prefixes.disk_tokens;
  d["blocks_written"] = prefixes.n_written;
  d["write_failures"] = prefixes.n_failures;
  d["damaged_files"] = prefixes.n_damaged;
  d["bytes"] = prefixes.memory.held_bytes;
  d["max_bytes"] = prefixes.memory.max_bytes;
  d["blocks"] = prefixes.memory.n_blocks;
  d["blocks_added"] = prefixes.memory.n_added;
  d["blocks_dropped"] = prefixes.memory.n_dropped;
  return d;
}

// What is wrong with memory, if anything, with advice.
Fields HealthFields(const AssistantStats& stats) {
  const ChurnReport& churn = stats.cache.churn;
  Fields d;
  const bool leaks = stats.cache.unreturned_bytes > 0;
  d["state"] = churn.thrashing         ? "thrashing"
               : leaks                 ? "memory_not_returned"
               : stats.memory_is_short ? "memory_is_short"
                                       : "ok";
  d["advice"] = churn.advice;
  d["reload_share"] = churn.reload_share;
  d["unreturned_bytes"] = stats.cache.unreturned_bytes;
  d["memory_is_short"] = stats.memory_is_short;
  return d;
}

Fields StatsFields(const AssistantStats& stats) {
  Fields d;
  d["budget_bytes"] = stats.budget.limit_bytes;
  d["used_bytes"] = stats.budget.used_bytes;
  d["peak_bytes"] = stats.budget.peak_bytes;
  py::dict purposes;
  for (int i = 0; i < kPurposeCount; ++i) {
    purposes[py::str(std::string(PurposeName(static_cast<Purpose>(i))))] =
        stats.budget.bytes_by_purpose[static_cast<size_t>(i)];
  }
  d["bytes_by_purpose"] = purposes;
  py::list experts;
  for (const ExpertStatus& status : stats.experts) {
    Fields row = ExpertFields(status);
    row["leases"] = 0;
    row["uses"] = 0;
    row["keep_alive_s"] = py::none();
    for (const BaseResidency& base : stats.bases.bases) {
      if (base.base != status.spec.base_id) continue;
      row["leases"] = base.n_leases;
      row["uses"] = base.n_uses;
      row["keep_alive_s"] = SecondsOrNone(base.keep_alive);
    }
    experts.append(row);
  }
  d["experts"] = experts;
  py::list adapters;
  for (const AdapterShelf::Entry& adapter : stats.adapters) {
    Fields row;
    row["adapter"] = adapter.label;
    row["base"] = adapter.base;
    row["bytes"] = adapter.bytes;
    adapters.append(row);
  }
  d["adapters"] = adapters;
  d["counters"] = CounterFields(stats);
  d["evictions"] = EvictionFields(stats.cache);
  d["queue"] = QueueFields(stats);
  d["prefixes"] = PrefixFields(stats.prefixes);
  py::dict lookup;
  lookup["proposed_tokens"] = stats.lookup.proposed_tokens;
  lookup["lookup_tokens"] = stats.lookup.lookup_tokens;
  d["lookup"] = lookup;
  d["health"] = HealthFields(stats);
  return d;
}

// Options as the Python side has checked and named them.
Request RequestFrom(const py::object& prompt_or_messages, const Fields& options) {
  Request request;
  request.messages = MessagesFrom(prompt_or_messages);
  request.max_tokens = Optional<int64_t>(options, "max_tokens").value_or(request.max_tokens);
  request.stop = Optional<std::vector<std::string>>(options, "stop").value_or(request.stop);
  request.expert = Optional<std::string>(options, "expert").value_or("");
  request.adapter = Optional<std::string>(options, "adapter");
  request.conversation = Optional<std::string>(options, "conversation").value_or("");
  if (const auto priority = Optional<std::string>(options, "priority")) {
    request.priority = ValueOrRaise(ParsePriority(*priority));
  }
  request.log = Optional<bool>(options, "log").value_or(true);
  request.reuse = Optional<bool>(options, "reuse").value_or(true);
  request.lookup = Optional<bool>(options, "lookup");
  request.retrieval = Optional<bool>(options, "retrieval");
  if (const auto timeout = Optional<double>(options, "timeout")) {
    request.deadline = absl::Now() + absl::Seconds(*timeout);
  }
  SamplingOverrides& sampling = request.sampling;
  sampling.temperature = Optional<float>(options, "temperature");
  sampling.top_k = Optional<int>(options, "top_k");
  sampling.top_p = Optional<float>(options, "top_p");
  sampling.min_p = Optional<float>(options, "min_p");
  sampling.repetition_penalty = Optional<float>(options, "repetition_penalty");
  sampling.seed = Optional<uint64_t>(options, "seed");
  sampling.n_logprobs = Optional<int>(options, "logprobs").value_or(-1);
  return request;
}

Configuration ConfigurationFrom(const std::optional<std::string>& path,
                                const py::object& memory_budget, const std::optional<int>& threads,
                                const std::optional<std::string>& home) {
  Configuration configuration =
      ValueOrRaise(path ? Configuration::Load(*path) : Configuration::Default());
  if (!memory_budget.is_none()) {
    configuration.memory_budget_bytes =
        py::isinstance<py::str>(memory_budget)
            ? ValueOrRaise(ParseByteSize(memory_budget.cast<std::string>()))
            : memory_budget.cast<int64_t>();
  }
  if (threads) configuration.threads = *threads;
  if (home) configuration.home = *home;
  return configuration;
}

std::shared_ptr<Assistant> OpenAssistant(const std::optional<std::string>& config,
                                         const py::object& memory_budget,
                                         const std::optional<int>& threads,
                                         const std::optional<std::string>& home) {
  auto opened =
      CallInterruptibly([configuration = ConfigurationFrom(config, memory_budget, threads, home)](
                            std::stop_token) { return Assistant::Open(configuration); });
  return OwnedByPython(ValueOrRaise(std::move(opened)));
}

std::shared_ptr<ReplyStream> OpenStream(std::shared_ptr<Assistant> assistant,
                                        const py::object& prompt, const Fields& options) {
  return OwnedByPython(
      std::make_unique<ReplyStream>(std::move(assistant), RequestFrom(prompt, options)));
}

// Ctrl-C cancels the answer that a caller waits for.
void CancelOnSignal(ReplyStream& stream) {
  if (PyErr_CheckSignals() == 0) return;
  stream.Cancel();
  throw py::error_already_set();
}

// The next piece, or None at the end.
std::optional<py::str> NextPiece(ReplyStream& stream) {
  while (true) {
    std::string piece;
    ReplyStream::Next next;
    {
      GilReleased released;
      next = stream.Take(kSignalPatience, piece);
    }
    CancelOnSignal(stream);
    if (next == ReplyStream::Next::kPiece) return TextFrom(piece);
    if (next == ReplyStream::Next::kEnd) return std::nullopt;
  }
}

Fields StreamResult(ReplyStream& stream) {
  bool ended = false;
  while (!ended) {
    {
      GilReleased released;
      ended = stream.WaitForEnd(kSignalPatience);
    }
    CancelOnSignal(stream);
  }
  return ReplyFields(ValueOrRaise(stream.Result()));
}

Fields DecideRoute(const Assistant& assistant, const py::str& text) {
  const std::string prompt = Utf8From(text);
  absl::StatusOr<Route> route;
  {
    GilReleased released;
    route = assistant.Decide(prompt);
  }
  return RouteFields(ValueOrRaise(std::move(route)));
}

// What it teaches the router takes its time.
void GiveFeedback(Assistant& assistant, const std::string& id, const std::string& verdict,
                  const py::str& text, const std::string& domain) {
  Feedback feedback{ValueOrRaise(ParseVerdict(verdict)), Utf8From(text), domain};
  absl::Status status;
  {
    GilReleased released;
    status = assistant.GiveFeedback(id, std::move(feedback));
  }
  RaiseIfError(status);
}

// Adapters that were trained on it are trained again, which takes its time.
void Forget(std::shared_ptr<Assistant> assistant, const std::string& id) {
  RaiseIfError(CallInterruptibly([assistant = std::move(assistant), id](std::stop_token stop) {
    return assistant->Forget(id, std::move(stop));
  }));
}

Fields Train(std::shared_ptr<Assistant> assistant, const std::string& expert,
             const Fields& options) {
  return TrainingReportFields(ValueOrRaise(CallInterruptibly(
      [assistant = std::move(assistant), request = TrainingRequestFrom(expert, options)](
          std::stop_token stop) { return assistant->Train(request, std::move(stop)); })));
}

std::vector<Fields> EventList(Assistant& assistant) {
  std::vector<Fields> events;
  for (const Event& event : assistant.TakeEvents()) {
    Fields d;
    d["kind"] = event.kind;
    d["expert"] = event.expert;
    d["bytes"] = event.bytes;
    d["done_bytes"] = event.done_bytes;
    d["text"] = event.text;
    d["reason"] = event.reason;
    events.push_back(std::move(d));
  }
  return events;
}

std::vector<Fields> ExpertList(const Assistant& assistant) {
  std::vector<Fields> experts;
  for (const ExpertStatus& status : assistant.Experts()) experts.push_back(ExpertFields(status));
  return experts;
}

void ReloadAdapters(Assistant& assistant) {
  absl::Status status;
  {
    GilReleased released;
    status = assistant.ReloadAdapters();
  }
  RaiseIfError(status);
}

// Eviction gives memory back to the system, which takes its time.
void SetMemoryBudget(Assistant& assistant, int64_t bytes) {
  absl::Status status;
  {
    GilReleased released;
    status = assistant.SetMemoryBudget(bytes);
  }
  RaiseIfError(status);
}

Fields ServerFields(const Assistant& assistant) {
  const ServerConfiguration& server = assistant.configuration().server;
  Fields d;
  d["host"] = server.host;
  d["port"] = server.port;
  d["api_key"] = server.api_key;
  return d;
}

void BindReplyStream(py::module_& module) {
  py::class_<ReplyStream, std::shared_ptr<ReplyStream>>(
      module, "ReplyStream", "An answer being written; coterie.ReplyStream is the public face.")
      .def("next_piece", &NextPiece,
           "The next piece of text, whole characters only; None at the end. Ctrl-C cancels.")
      .def("cancel", &ReplyStream::Cancel, "Asks the answer to end; returns at once.")
      .def("result", &StreamResult,
           "Waits for the end; the fields of coterie.Reply. Raises what ended the answer.");
}

}  // namespace

void BindAssistant(py::module_& module) {
  BindReplyStream(module);
  py::class_<Assistant, std::shared_ptr<Assistant>>(
      module, "Assistant", "Router, experts and their cache; coterie.Assistant is the public face.")
      .def_static("open", &OpenAssistant, py::arg("config") = py::none(), py::kw_only(),
                  py::arg("memory_budget") = py::none(), py::arg("threads") = py::none(),
                  py::arg("home") = py::none(),
                  "Opens a coterie.toml, or the store. memory_budget: bytes or a size as text.")
      .def("stream", &OpenStream, py::arg("prompt"), py::arg("options"),
           "Starts an answer. options: the keyword arguments of coterie.Assistant.stream.")
      .def("route", &DecideRoute, py::arg("prompt"), "Decides only: the fields of coterie.Route.")
      .def("feedback", &GiveFeedback, py::arg("id"), py::arg("verdict"), py::arg("text"),
           py::arg("domain"),
           "What the user says of a reply. verdict: \"accepted\", \"rejected\", \"edited\" (text: "
           "to what) or \"none\"; domain: where the prompt belongs, or \"\".")
      .def("forget", &Forget, py::arg("id"), "Erases a reply and what was learned from it.")
      .def("train", &Train, py::arg("expert"), py::arg("options"),
           "Trains an adapter on feedback: the fields of coterie.TrainingReport. options: those of "
           "coterie.TrainingOptions by name.")
      .def(
          "training",
          [](const Assistant& assistant) {
            return TrainingProgressFields(assistant.training_progress());
          },
          "How far the training under way, or the last one, has come.")
      .def(
          "stats", [](const Assistant& assistant) { return StatsFields(assistant.Stats()); },
          "Budget, bytes by purpose, experts and counters.")
      .def("reload_adapters", &ReloadAdapters, "Finds the experts that new adapters make.")
      .def("experts", &ExpertList, "The experts in the order of their names.")
      .def("events", &EventList, "What happened to memory since the last call, oldest first.")
      .def("set_memory_budget", &SetMemoryBudget, py::arg("budget"), "Changes the budget (bytes).")
      .def("problems", &Assistant::problems, "Models that were left out, and why.")
      .def("server_configuration", &ServerFields, "The [server] table of the configuration.");
}

}  // namespace coterie
