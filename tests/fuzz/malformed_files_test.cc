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
#include "core/formats/safetensors_writer.h"
#include "core/formats/tokenizer_json.h"
#include "experts/expert.h"
#include "experts/expert_catalog.h"
#include "experts/session.h"
#include "lora/adapter_files.h"
#include "router/router.h"
#include "runtime/configuration.h"
#include "tests/fuzz/allocation_meter.h"
#include "tests/fuzz/gguf_draft.h"
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
using ::testing::HasSubstr;

constexpr int64_t kSlackBytes = 64'000'000;

struct Format {
  const char* name;
  const char* file_name;
  std::vector<MalformedFile> (*malformed)();
  std::string (*valid)();
  // Opens the file of this path as the format.
  std::function<absl::Status(const std::string& path)> open;

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

void WriteAdapterTensors(const std::string& folder) {
  const std::vector<float> values(32, 0.5f);
  const absl::Span<const uint8_t> bytes = {reinterpret_cast<const uint8_t*>(values.data()), 128};
  SafetensorsWriter writer;
  const std::string module = "base_model.model.model.layers.0.mlp.up_proj.lora_";
  writer.AddTensor(module + "A.weight", SafetensorsType::kF32, {2, 16}, bytes);
  writer.AddTensor(module + "B.weight", SafetensorsType::kF32, {16, 2}, bytes);
  COTERIE_EXPECT_OK(writer.Write(folder + "/adapter_model.safetensors"));
}

const std::vector<Format>& Formats() {
  static const auto* const formats = new std::vector<Format>{
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
      {"ShardIndex", "model.safetensors.index.json", testing::MalformedShardIndexes,
       testing::ValidShardIndex,
       [](const std::string& path) {
         std::ofstream(FolderOf(path) + "/a.safetensors") << testing::ValidSafetensors();
         return SafetensorsFolder::Open(FolderOf(path)).status();
       }},
      {"AdapterConfig", "adapter_config.json", testing::MalformedAdapterConfigs,
       testing::ValidAdapterConfig,
       [](const std::string& path) {
         WriteAdapterTensors(FolderOf(path));
         return ReadPeftAdapter(FolderOf(path)).status();
       }},
      {"Record", "models/bad.json", testing::MalformedRecords, testing::ValidRecord, OpenStore},
  };
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
    EXPECT_THAT(std::string(status.message()), AllOf(HasSubstr(path), HasSubstr(file.field)));
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
