#pragma once

// What the bindings of experts and of adapters share.

#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <vector>

#include "pybind11/numpy.h"

#include "core/threads/worker_pool.h"
#include "experts/expert.h"
#include "experts/generation.h"
#include "lora/adapter.h"
#include "python/bindings/bindings.h"

namespace coterie {

// An adapter with what passes over one base apply. Const after construction.
struct __attribute__((visibility("hidden"))) PythonAdapter {
  Adapter adapter;
  ArchSpec spec;  // Of its base.
  DeltaSnapshot deltas;
  std::string warning;  // Of Bind.
};

// coterie.Expert behind its Python face. Thread-safe.
class __attribute__((visibility("hidden"))) PythonExpert {
 public:
  static std::shared_ptr<PythonExpert> Open(const std::string& path, const std::string& activations,
                                            int threads);

  const std::shared_ptr<const Expert>& expert() const { return expert_; }

  // [n_tokens, n_vocab]
  static pybind11::array_t<float> Logits(std::shared_ptr<PythonExpert> self,
                                         std::vector<TokenId> ids,
                                         std::optional<std::shared_ptr<PythonAdapter>> adapter);
  static Fields Generate(std::shared_ptr<PythonExpert> self, const pybind11::object& prompt,
                         int64_t max_tokens, const SamplingOptions& sampling,
                         const std::vector<std::string>& stop,
                         std::optional<std::shared_ptr<PythonAdapter>> adapter, bool lookup);
  Fields Description() const;

 private:
  PythonExpert(std::shared_ptr<const Expert> expert, Activations activations, int threads)
      : expert_(std::move(expert)), activations_(activations), pool_(threads) {}

  // Row-major [n_tokens, n_vocab].
  absl::StatusOr<std::vector<float>> ComputeLogits(const std::vector<TokenId>& ids,
                                                   const DeltaSnapshot& adapter,
                                                   const std::stop_token& stop);
  absl::StatusOr<Generation> Answer(const std::vector<Message>& messages,
                                    const GenerationOptions& options, const DeltaSnapshot& adapter,
                                    std::stop_token cancel);

  std::shared_ptr<const Expert> expert_;
  const Activations activations_;
  WorkerPool pool_;
};

}  // namespace coterie
