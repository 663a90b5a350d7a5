// The parts below Assistant: a router that only classifies, an expert that only answers.
#include <iostream>

#include "core/threads/worker_pool.h"
#include "experts/generation.h"
#include "router/router.h"
#include "runtime/default_router.h"

int main(int argc, char** argv) {
  if (argc != 3) return 2;   // parts MODEL.gguf PROMPT
  coterie::WorkerPool pool;  // Outlives what computes on it.

  const auto path = coterie::DefaultRouterPath();
  const auto router = path.ok() ? coterie::Router::Load(*path, &pool) : path.status();
  const auto scores = router.ok() ? (*router)->Classify(argv[2]) : router.status();
  if (!scores.ok()) return std::cerr << scores.status() << "\n", 1;
  std::cout << scores->domain() << ": " << scores->why.summary << "\n";

  const auto expert = coterie::Expert::Open(argv[1]);
  if (!expert.ok()) return std::cerr << expert.status() << "\n", 1;
  const coterie::Message messages[] = {{"user", argv[2], ""}};
  const auto prompt = coterie::EncodeConversation(**expert, messages);
  if (!prompt.ok()) return std::cerr << prompt.status() << "\n", 1;
  coterie::GenerationOptions options;
  options.max_tokens = 16;
  const auto n_tokens = static_cast<int64_t>(prompt->ids.size()) + options.max_tokens;
  coterie::Session session(**expert, pool, coterie::SessionShape::ForTokens(n_tokens));
  const auto answer = coterie::Generate(
      session, prompt->ids, options,
      [](absl::string_view text) { return std::cout << text << std::flush, true; }, {});
  if (!answer.ok()) return std::cerr << answer.status() << "\n", 1;
  std::cout << "\n-- " << answer->n_tokens << " tokens\n";
}
