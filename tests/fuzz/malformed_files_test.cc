// Every file that lies is refused: with the right code, in words that name the file and the field,
// in less than a second, without memory beyond the file's size and 64 MB, and without harm to what
// is loaded already.

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "core/formats/chat_template.h"
#include "core/formats/gguf_file.h"
#include "core/formats/safetensors_file.h"
#include "core/formats/safetensors_folder.h"
#include "core/formats/tokenizer_json.h"
#include "experts/expert.h"
#include "experts/expert_catalog.h"
#include "experts/expert_quality.h"
#include "experts/session.h"
#include "lora/adapter_files.h"
#include "lora/adapter_store.h"
#include "router/router.h"
#include "runtime/configuration.h"
#include "tests/fuzz/allocation_meter.h"
#include "tests/fuzz/gguf_draft.h"
#include "tests/fuzz/hugging_face_draft.h"
#include "tests/fuzz/malformed_file.h"
#include "tests/fuzz/scratch_folder.h"
#include "tests/status_matchers.h"

#include <sys/stat.h>

namespace coterie {
namespace {

using ::coterie::testing::AllocationMeter;
using ::coterie::testing::CpuSecondsOf;
using ::coterie::testing::MalformedFile;
using ::coterie::testing::ScratchFolder;
using ::testing::AllOf;
using ::testing::AnyOf;
using ::testing::HasSubstr;

constexpr int64_t kSlackBytes = 64'000'000;

struct Format {
  const char* name;
  const char* file_name;
  std::vector<MalformedFile> (*malformed)();
  std::string (*valid)();
  // Opens the file of this path as the format.
  std::function<absl::Status(const std::string& path)> open;
  // Part of a model in a folder: what only its tensors show to be wrong names the folder.
  bool is_of_model_folder = false;

  friend std::ostream& operator<<(std::ostream& out, const Format& format) {
    return out << format.name;
  }
};

std::string FolderOf(const std::string& path) {
  return std::filesystem::path(path).parent_path().string();
}

// A store is sound even if a record in it is not: the record is named among its problems.
absl::Status OpenStore(const std::string& path) {
  const std::filesystem::path home = std::filesystem::path(path).parent_path().parent_path();
  testing::TinyModel().Write((home / "model.gguf").string());
  const absl::StatusOr<ExpertCatalog> catalog = ExpertCatalog::FromStore(home.string());
  if (!catalog.ok() || catalog->problems().empty()) return catalog.status();
  return absl::DataLossError(absl::StrJoin(catalog->problems(), "; "));
}

void WriteBeside(const std::string& path, const std::string& name, const std::string& bytes) {
  std::ofstream(FolderOf(path) + "/" + name, std::ios::binary | std::ios::trunc) << bytes;
}

absl::Status OpenFolder(const std::string& path) {
  testing::CompleteHuggingFaceFolder(FolderOf(path));
  return Expert::Open(FolderOf(path)).status();
}

// `path` is below home/adapters/home.
AdapterStore StoreAbove(std::string path) {
  while (std::filesystem::path(path).filename() != "adapters") path = FolderOf(path);
  return AdapterStore(FolderOf(path));
}

const ArchSpec& TinySpec() {
  static const auto* const spec = [] {
    const std::string bytes = testing::TinyModel().Bytes();
    return new ArchSpec(*ArchSpec::FromGguf(
        **GgufFile::Parse({reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()}, "tiny")));
  }();
  return *spec;
}

// Hugging Face folders, GGUF files in parts and what is kept of adapters: files with others beside
// them.
std::vector<Format> FormatsOfSeveralFiles() {
  return {
      {"ShardIndex", "model.safetensors.index.json", testing::MalformedShardIndexes,
       testing::ValidShardIndex,
       [](const std::string& path) {
         WriteBeside(path, "a.safetensors", testing::ValidSafetensors());
         return SafetensorsFolder::Open(FolderOf(path)).status();
       }},
      {"ModelConfig", "config.json", testing::MalformedModelConfigs, testing::TinyModelConfig,
       OpenFolder, true},
      {"TokenizerConfig", "tokenizer_config.json", testing::MalformedTokenizerConfigs,
       testing::TinyTokenizerConfig, OpenFolder, true},
      {"GenerationConfig", "generation_config.json", testing::MalformedGenerationConfigs,
       [] { return std::string(R"({"eos_token_id":[3]})"); }, OpenFolder, true},
      {"ModelWeights", "model.safetensors", testing::MalformedModelWeights,
       testing::TinyModelWeights, OpenFolder, true},
      {"FirstPart", "bad-00001-of-00002.gguf", testing::MalformedFirstParts,
       testing::ValidFirstPart,
       [](const std::string& path) {
         WriteBeside(path, "bad-00002-of-00002.gguf", testing::ValidSecondPart());
         return Expert::Open(path).status();
       }},
      {"SecondPart", "bad-00002-of-00002.gguf", testing::MalformedSecondParts,
       testing::ValidSecondPart,
       [](const std::string& path) {
         WriteBeside(path, "bad-00001-of-00002.gguf", testing::ValidFirstPart());
         return Expert::Open(FolderOf(path) + "/bad-00001-of-00002.gguf").status();
       }},
      {"AdapterConfig", "adapter_config.json", testing::MalformedAdapterConfigs,
       testing::ValidAdapterConfig,
       [](const std::string& path) {
         WriteBeside(path, "adapter_model.safetensors", testing::ValidAdapterTensors());
         return ReadPeftAdapter(FolderOf(path)).status();
       }},
      {"AdapterTensors", "adapter_model.safetensors", testing::MalformedAdapterTensors,
       testing::ValidAdapterTensors,
       [](const std::string& path) {
         WriteBeside(path, "adapter_config.json", testing::ValidAdapterConfig());
         return ReadPeftAdapter(FolderOf(path)).status();
       }},
      {"Ledger", "adapters/home/v0001/ledger.json", testing::MalformedLedgers, testing::ValidLedger,
       [](const std::string& path) { return StoreAbove(path).Ledger("home", 1).status(); }},
      {"CurrentVersion", "adapters/home/current", testing::MalformedCurrentVersions,
       [] { return std::string("1\n"); },
       [](const std::string& path) { return StoreAbove(path).CurrentVersion("home").status(); }},
      {"Record", "models/bad.json", testing::MalformedRecords, testing::ValidRecord, OpenStore},
  };
}

std::vector<Format> FormatsOfOneFile() {
  return {
      {"Gguf", "bad.gguf", testing::MalformedGguf, testing::ValidGguf,
       [](const std::string& path) { return GgufFile::Open(path).status(); }},
      {"Safetensors", "bad.safetensors", testing::MalformedSafetensors, testing::ValidSafetensors,
       [](const std::string& path) { return SafetensorsFile::Open(path).status(); }},
      {"Model", "bad.gguf", testing::MalformedModels, [] { return testing::TinyModel().Bytes(); },
       [](const std::string& path) { return Expert::Open(path).status(); }},
      {"SentencePieceModel", "bad.gguf", [] { return std::vector<MalformedFile>(); },
       [] { return testing::TinySentencePieceModel().Bytes(); },
       [](const std::string& path) { return Expert::Open(path).status(); }},
      {"LexicalRouter", "bad.gguf", testing::MalformedRouters,
       [] { return testing::TinyLexicalRouter().Bytes(); },
       [](const std::string& path) { return Router::Load(path).status(); }},
      {"EncoderRouter", "bad.gguf", [] { return std::vector<MalformedFile>(); },
       [] { return testing::TinyEncoderRouter().Bytes(); },
       [](const std::string& path) { return Router::Load(path).status(); }},
      {"Template", "bad.jinja", testing::MalformedTemplates, testing::ValidTemplate,
       [](const std::string& path) {
         std::ifstream file(path, std::ios::binary);
         const std::string source{std::istreambuf_iterator<char>(file), {}};
         return ChatTemplate::Parse(source, path).status();
       }},
      {"Configuration", "bad.toml", testing::MalformedConfigurations, testing::ValidConfiguration,
       [](const std::string& path) { return Configuration::Load(path).status(); }},
      {"TokenizerJson", "tokenizer.json", testing::MalformedTokenizerJson,
       testing::ValidTokenizerJson,
       [](const std::string& path) { return TokenizerFromHuggingFace(FolderOf(path)).status(); }},
      {"GgufAdapter", "bad.gguf", testing::MalformedGgufAdapters, testing::ValidGgufAdapter,
       [](const std::string& path) { return ReadGgufAdapter(path, TinySpec()).status(); }},
      {"Measurements", "measurements.json", testing::MalformedMeasurements,
       testing::ValidMeasurements,
       [](const std::string& path) { return MeasuredQuality::Read(FolderOf(path)).status(); }},
  };
}

const std::vector<Format>& Formats() {
  static const auto* const formats = [] {
    auto* all = new std::vector<Format>(FormatsOfOneFile());
    for (Format& format : FormatsOfSeveralFiles()) all->push_back(std::move(format));
    return all;
  }();
  return *formats;
}

class FormatTest : public ::testing::TestWithParam<Format> {};

INSTANTIATE_TEST_SUITE_P(Formats, FormatTest, ::testing::ValuesIn(Formats()),
                         [](const auto& info) { return std::string(info.param.name); });

TEST_P(FormatTest, MalformedFilesAreRefusedByNameInLittleTimeAndMemory) {
  const Format& format = GetParam();
  const ScratchFolder folder;
  for (const MalformedFile& file : format.malformed()) {
    SCOPED_TRACE(file.name);
    const std::string path = folder.Write(format.file_name, file.bytes);
    absl::Status status;
    int64_t peak_bytes = 0;
    const double seconds = CpuSecondsOf([&] {
      const AllocationMeter meter;
      status = format.open(path);
      peak_bytes = meter.PeakBytes();
    });
    EXPECT_EQ(status.code(), file.code) << status;
    const ::testing::Matcher<std::string> names_file =
        format.is_of_model_folder
            ? AnyOf(HasSubstr(path), AllOf(HasSubstr(FolderOf(path)), HasSubstr("tensor=")))
            : ::testing::Matcher<std::string>(HasSubstr(path));
    EXPECT_THAT(std::string(status.message()), AllOf(names_file, HasSubstr(file.field)));
    EXPECT_LT(status.message().size(), 4000u);
    EXPECT_LE(peak_bytes, static_cast<int64_t>(file.bytes.size()) + kSlackBytes);
    EXPECT_LT(seconds, 1.0 * testing::kSlowdown);
  }
}

// So that what is refused above is refused for the one thing that is wrong with it.
TEST_P(FormatTest, ValidFileIsAccepted) {
  const Format& format = GetParam();
  const ScratchFolder folder;
  COTERIE_EXPECT_OK(format.open(folder.Write(format.file_name, format.valid())));
}

TEST_P(FormatTest, FileCutAnywhereIsRefusedOrStillValid) {
  const Format& format = GetParam();
  const ScratchFolder folder;
  const std::string bytes = format.valid();
  for (size_t n = 0; n < bytes.size(); n += 1 + bytes.size() / 300) {
    const std::string path = folder.Write(format.file_name, bytes.substr(0, n));
    const absl::Status status = format.open(path);
    if (status.ok()) continue;
    EXPECT_THAT(std::string(status.message()), HasSubstr(path));
  }
}

// A pipe has no end, and opening one waits for whoever writes it.
TEST_P(FormatTest, PipeOfItsNameIsRefusedAtOnce) {
  const Format& format = GetParam();
  if (std::string(format.name) == "Template") return;  // A template is part of a file.
  const ScratchFolder folder;
  const std::string path = folder.Write(format.file_name, "");
  std::filesystem::remove(path);
  ASSERT_EQ(::mkfifo(path.c_str(), 0600), 0);
  const absl::Status status = format.open(path);  // A block would end in the test's time limit.
  EXPECT_THAT(status, ::testing::Not(::coterie::testing::IsOk()));
  EXPECT_THAT(std::string(status.message()), HasSubstr("not a regular file"));
}

// The last logits of a short text, to the bit.
std::vector<float> LogitsOf(const Expert& expert, WorkerPool& pool) {
  Session session(expert, pool, SessionShape::ForTokens(16), Activations::kInt8);
  const auto tokens = expert.tokenizer().Encode("hello you", false, false);
  COTERIE_EXPECT_OK(tokens);
  COTERIE_EXPECT_OK(session.Prefill(*tokens, {}));
  return {session.logits().begin(), session.logits().end()};
}

TEST(LoadedExpertTest, AnswersTheSameAfterEveryMalformedFile) {
  const ScratchFolder folder;
  WorkerPool pool(1);
  const auto expert = Expert::Open(folder.Write("good.gguf", testing::TinyModel().Bytes()));
  COTERIE_ASSERT_OK(expert);
  const std::vector<float> before = LogitsOf(**expert, pool);
  for (const Format& format : Formats()) {
    for (const MalformedFile& bad : format.malformed()) {
      EXPECT_FALSE(format.open(folder.Write(format.file_name, bad.bytes)).ok()) << bad.name;
    }
  }
  EXPECT_EQ(LogitsOf(**expert, pool), before);
}

}  // namespace
}  // namespace coterie
