// _coterie.simulate: the cache on a virtual clock.

#include <string>
#include <tuple>
#include <vector>

#include "pybind11/stl.h"

#include "experts/cache_simulation.h"
#include "python/bindings/bindings.h"
#include "python/bindings/native_thread.h"

namespace py = pybind11;

namespace coterie {
namespace {

using BaseRow = std::tuple<std::string, int64_t, double>;
using RequestRow = std::tuple<double, int, int64_t, double>;

Fields Simulate(const std::vector<BaseRow>& bases, const std::vector<RequestRow>& requests,
                int64_t budget, const std::string& policy) {
  std::vector<SimulatedBase> simulated_bases;
  for (const auto& [id, bytes, load_s] : bases) {
    simulated_bases.push_back({id, bytes, absl::Seconds(load_s)});
  }
  std::vector<SimulatedRequest> simulated_requests;
  for (const auto& [arrival_s, base, kv_bytes, hold_s] : requests) {
    simulated_requests.push_back({absl::Seconds(arrival_s), base, kv_bytes, absl::Seconds(hold_s)});
  }
  const SimulatedPolicy parsed = ValueOrRaise(ParseSimulatedPolicy(policy));
  const SimulationResult value = ValueOrRaise(CallInterruptibly(
      [bases = std::move(simulated_bases), requests = std::move(simulated_requests), budget,
       parsed](std::stop_token) { return SimulateCache(bases, requests, budget, parsed); }));
  Fields d;
  d["requests"] = value.n_requests;
  d["hits"] = value.n_hits;
  d["joins"] = value.n_joins;
  d["loads"] = value.n_loads;
  d["refused"] = value.n_refused;
  d["hit_rate"] = value.hit_rate();
  d["bytes_loaded"] = value.loaded_bytes;
  d["peak_bytes"] = value.peak_bytes;
  d["mean_wait_ms"] = absl::ToDoubleMilliseconds(value.mean_wait);
  d["wait_p50_ms"] = absl::ToDoubleMilliseconds(value.wait_p50);
  d["wait_p99_ms"] = absl::ToDoubleMilliseconds(value.wait_p99);
  d["length_s"] = absl::ToDoubleSeconds(value.length);
  return d;
}

}  // namespace

void BindSimulation(py::module_& module) {
  module.def("simulate", &Simulate, py::arg("bases"), py::arg("requests"), py::arg("budget"),
             py::arg("policy"),
             "Runs a trace through the cache on a virtual clock. bases: (name, bytes, load "
             "seconds); requests: (arrival seconds, index of the base, KV bytes, hold seconds), in "
             "order; budget: bytes; policy: \"coterie\", \"lru\" or \"belady\".");
}

}  // namespace coterie
