// Text to tokens, bytes per second on one core, and how long a tokenizer takes to build.
//
//   tokenizer_bench MODEL.gguf TEXT [--benchmark_filter=...]
//
// What is encoded is checked by decoding it before it is timed. Besides the text: one letter, and
// random code points.

#include <cstdio>
#include <fstream>
#include <iterator>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "benchmark/benchmark.h"

#include "core/formats/gguf_file.h"
#include "core/formats/tokenizer.h"
#include "core/formats/utf8.h"

namespace coterie {
namespace {

std::string RandomCodePoints(int n) {
  std::mt19937 random(1);
  std::string text;
  for (int i = 0; i < n; ++i) {
    const uint32_t c = random() % 0x30000;
    if (c < 0xD800 || c > 0xDFFF) AppendUtf8(c, &text);
  }
  return text;
}

void Encode(benchmark::State& state, const Tokenizer& tokenizer, const std::string& text) {
  for (auto _ : state) benchmark::DoNotOptimize(tokenizer.Encode(text, false, true));
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * text.size()));
}

void Decode(benchmark::State& state, const Tokenizer& tokenizer, const std::string& text) {
  const std::vector<TokenId> ids = *tokenizer.Encode(text, false, true);
  for (auto _ : state) benchmark::DoNotOptimize(tokenizer.Decode(ids));
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * text.size()));
}

void Build(benchmark::State& state, const GgufFile& file) {
  int64_t memory_bytes = 0;
  for (auto _ : state) memory_bytes = (*Tokenizer::FromGguf(file))->memory_bytes();
  state.counters["table_MB"] = static_cast<double>(memory_bytes) / 1e6;
}

int Run(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (argc != 3) {
    std::fprintf(stderr, "usage: tokenizer_bench MODEL.gguf TEXT [--benchmark_...]\n");
    return 2;
  }
  const auto file = GgufFile::Open(argv[1]);
  const auto tokenizer = file.ok() ? Tokenizer::FromGguf(**file) : file.status();
  if (!tokenizer.ok()) {
    std::fprintf(stderr, "%s\n", tokenizer.status().ToString().c_str());
    return 1;
  }
  std::ifstream in(argv[2], std::ios::binary);
  const std::string given{std::istreambuf_iterator<char>(in), {}};
  const std::pair<const char*, std::string> texts[] = {
      {"Text", given},
      {"OneLetter", std::string(1 << 20, 'a')},
      {"RandomCodePoints", RandomCodePoints(300000)}};
  for (const auto& [name, text] : texts) {
    const auto ids = (*tokenizer)->Encode(text, false, true);
    if (!ids.ok() || (name == texts[0].first && (*tokenizer)->Decode(*ids) != text)) {
      std::fprintf(stderr, "%s does not come back: %s\n", name, ids.status().ToString().c_str());
      return 1;
    }
    const auto register_one = [&](const char* verb, auto* function) {
      benchmark::RegisterBenchmark(
          (std::string("BM_") + verb + name).c_str(),
          [&, function](benchmark::State& state) { function(state, **tokenizer, text); });
    };
    register_one("Encode", &Encode);
    register_one("Decode", &Decode);
  }
  benchmark::RegisterBenchmark("BM_Build", [&](benchmark::State& state) { Build(state, **file); });
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}

}  // namespace
}  // namespace coterie

int main(int argc, char** argv) { return coterie::Run(argc, argv); }
