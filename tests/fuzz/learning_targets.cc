// The targets of what learning reads: adapters, their store, interactions, checkpoints.

#include <cmath>
#include <memory>

#include "experts/expert.h"
#include "lora/adapter_config.h"
#include "lora/adapter_files.h"
#include "lora/adapter_store.h"
#include "lora/cpu_trainer.h"
#include "lora/interaction.h"
#include "lora/record_cipher.h"
#include "lora/replay_source.h"
#include "tests/fuzz/gguf_draft.h"
#include "tests/fuzz/malformed_file.h"
#include "tests/fuzz/scratch_folder.h"
#include "tests/fuzz/target_inputs.h"
#include "tests/fuzz/targets.h"

namespace coterie::testing {
namespace {

void RunAdapter(absl::string_view bytes) {
  const auto config = AdapterConfig::Parse(bytes, "fuzz/adapter_config.json");
  if (!config.ok()) return;
  for (const int64_t layer : {0, 11}) {
    const auto scale = config->ScaleOf(ModuleName(layer, LayerLinear::kUp), layer, 2);
    COTERIE_CHECK(!scale.ok() || std::isfinite(*scale), "a scale is finite");
  }
}

const ArchSpec& TinySpec() {
  static const auto* const spec = [] {
    const std::string bytes = TinyModel().Bytes();
    return new ArchSpec(*ArchSpec::FromGguf(**GgufFile::Parse(AsBytes(bytes), "tiny.gguf")));
  }();
  return *spec;
}

void ServeAdapter(const absl::StatusOr<Adapter>& adapter) {
  if (!adapter.ok()) return;
  for (const LinearDelta& delta : adapter->deltas) {
    COTERIE_CHECK(std::isfinite(delta.scale) && delta.rank > 0, "a delta can be applied");
  }
  static_cast<void>(LinearDeltaSet::Create(TinySpec(), "fuzz@1", adapter->deltas));
}

void RunGgufAdapter(absl::string_view bytes) {
  const MemoryFile memory(bytes);
  ServeAdapter(ReadGgufAdapter(memory.path(), TinySpec()));
}

void RunAdapterTensors(absl::string_view bytes) {
  static const auto folder = [] {
    auto made = std::make_unique<ScratchFolder>();
    made->Write("adapter_config.json", ValidAdapterConfig());
    return made;
  }();
  folder->Write("adapter_model.safetensors", std::string(bytes));
  static_cast<void>(ReadPeftIdentity(folder->path()));
  ServeAdapter(ReadPeftAdapter(folder->path()));
}

// A version's ledger, and the file that names the version in use.
void RunLedger(absl::string_view bytes) {
  static const auto folder = std::make_unique<ScratchFolder>();
  static const auto* const store = new AdapterStore(folder->path());
  folder->Write("adapters/home/v0001/ledger.json", std::string(bytes));
  folder->Write("adapters/home/current", std::string(bytes));
  static_cast<void>(store->Ledger("home", 1));
  static_cast<void>(store->Current("home"));
  COTERIE_CHECK(store->List().ok(), "a bad ledger spares the others");
}

Interaction TinyInteraction() {
  Interaction interaction;
  interaction.messages = {{"user", "hi", "{}"}};
  interaction.reply = "ho";
  return interaction;
}

void RunInteraction(absl::string_view bytes) {
  Interaction interaction;
  if (!ReadContentJson(bytes, interaction).ok()) return;
  static_cast<void>(AskedText(interaction.messages));
  Interaction again;
  COTERIE_CHECK(ReadContentJson(ContentJson(interaction), again).ok() &&
                    again.reply == interaction.reply &&
                    again.messages.size() == interaction.messages.size(),
                "what is logged is read back");
}

// A trainer, and the state that it begins with.
struct TinyTrainer {
  TinyTrainer() {
    folder.Write("model.gguf", TinyModel().Bytes());
    expert = *Expert::Open(folder.path("model.gguf"));
    TrainerOptions options;
    options.rank = 1;
    options.targets = {LayerLinear::kUp};
    trainer = *CpuTrainer::Make(expert->spec(), expert->weights(), pool, budget, options, 8);
    state = trainer->SaveState();
  }

  const ScratchFolder folder;
  WorkerPool pool{1};
  MemoryBudget budget{int64_t{1} << 30};
  std::shared_ptr<const Expert> expert;
  std::unique_ptr<Trainer> trainer;
  std::string state;
};

TinyTrainer& Training() {
  static TinyTrainer training;
  return training;
}

void RunCheckpoint(absl::string_view bytes) {
  Trainer& trainer = *Training().trainer;
  if (trainer.RestoreState(bytes).ok()) {
    COTERIE_CHECK(trainer.n_steps() >= 0 && trainer.SaveState() == std::string(bytes),
                  "what is restored is what was saved");
    TrainingExample example;
    example.sequence.tokens = {1, 2, 3};
    example.sequence.is_target = {false, true, true};
    static_cast<void>(trainer.Step({&example, 1}, {}));
  }
  COTERIE_CHECK(trainer.RestoreState(Training().state).ok(), "a sound checkpoint is restored");
}

void RunReplay(absl::string_view bytes) {
  static const Tokenizer* const tokenizer = TokenizerOf(TinySentencePieceModel()).release();
  const auto replay = ReplaySource::FromText(std::string(bytes), "fuzz.txt");
  if (!replay.ok()) return;
  const auto examples = replay->Examples(*tokenizer, 4, 16, 1);
  COTERIE_CHECK(examples.ok() && examples->size() <= 4, "a text to rehearse gives passages");
}

void RunKey(absl::string_view bytes) {
  const MemoryFile memory(bytes);
  const auto key = ReadKeyFile(memory.path());
  COTERIE_CHECK(!key.ok() || key->size() == 32, "a key has the length of one");
}

}  // namespace

std::vector<FuzzTarget> LearningTargets() {
  return {
      {"adapter", RunAdapter,
       [] { return SeedsOf(MalformedAdapterConfigs(), {ValidAdapterConfig()}); }},
      {"gguf_adapter", RunGgufAdapter,
       [] { return SeedsOf(MalformedGgufAdapters(), {ValidGgufAdapter()}); }},
      {"adapter_tensors", RunAdapterTensors,
       [] { return SeedsOf(MalformedAdapterTensors(), {ValidAdapterTensors()}); }},
      {"ledger", RunLedger,
       [] {
         return SeedsOf(MalformedLedgers(), {ValidLedger(), "1\n", "1000000"});
       }},
      {"interaction", RunInteraction,
       [] { return SeedsOf(MalformedJson(1 << 16), {ContentJson(TinyInteraction())}); }},
      {"checkpoint", RunCheckpoint,
       [] {
         return Seeds{Training().state, "", "\n", Training().state.substr(0, 40)};
       }},
      {"replay", RunReplay,
       [] {
         return Seeds{
             "A line of a text that is long enough to be one passage of several.\n"
             "And another one, which is no shorter than the first of them.\n",
             "short", "\xff"};
       }},
      {"key", RunKey,
       [] {
         return Seeds{std::string(64, 'a'), std::string(32, 'b'), " \n", "xyz"};
       }},
  };
}

}  // namespace coterie::testing
