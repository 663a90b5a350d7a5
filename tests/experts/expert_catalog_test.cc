#include "experts/expert_catalog.h"

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "tests/status_matchers.h"

namespace coterie {
namespace {

namespace fs = std::filesystem;
using ::coterie::testing::IsOk;
using ::coterie::testing::StatusIs;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::StartsWith;

// A model store in a folder of its own.
class ExpertCatalogTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (fs::temp_directory_path() / "coterie_catalog_XXXXXX").string();
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    home_ = pattern;
    fs::create_directories(home_ / "models");
    fs::create_directories(home_ / "blobs");
  }
  void TearDown() override { fs::remove_all(home_); }

  void Write(const fs::path& path, const std::string& text) {
    std::ofstream(home_ / path, std::ios::binary) << text;
  }
  void WriteManifest(const std::string& name, const std::string& text) {
    Write(fs::path("models") / (name + ".json"), text);
  }
  // A manifest and a file of this content, "GGUF" and a few zeros if not said otherwise.
  void AddModel(const std::string& name, const std::string& more = "",
                const std::string& content = std::string("GGUF\0\0\0\3", 8)) {
    Write(fs::path("blobs") / name, content);
    WriteManifest(
        name, absl::StrCat(R"({"name": ")", name, R"(", "path": "blobs/)", name, "\"", more, "}"));
  }
  ExpertCatalog Open() {
    absl::StatusOr<ExpertCatalog> catalog = ExpertCatalog::FromStore(home_.string());
    EXPECT_THAT(catalog, IsOk());
    return catalog.ok() ? *std::move(catalog) : ExpertCatalog();
  }
  static std::vector<std::string> Names(const ExpertCatalog& catalog) {
    std::vector<std::string> names;
    for (const ExpertSpec& spec : catalog.experts()) names.push_back(spec.name);
    return names;
  }

  fs::path home_;
};

TEST_F(ExpertCatalogTest, EveryModelOfTheStoreIsAnExpert) {
  const std::string sha256(64, 'A');
  AddModel("qwen2.5-coder-0.5b", absl::StrCat(R"(, "bytes": 8, "license": "Apache-2.0",
      "sha256": ")",
                                              sha256, "\""));
  AddModel("other");
  const ExpertCatalog catalog = Open();
  EXPECT_THAT(Names(catalog), ElementsAre("other", "qwen2.5-coder-0.5b"));
  EXPECT_THAT(catalog.problems(), IsEmpty());
  COTERIE_ASSERT_OK_AND_ASSIGN(const ExpertSpec* spec, catalog.Find("qwen2.5-coder-0.5b"));
  EXPECT_EQ(spec->base_path, (home_ / "blobs/qwen2.5-coder-0.5b").string());
  EXPECT_EQ(spec->base_id, "sha256:" + std::string(64, 'a'));
  EXPECT_EQ(spec->bytes, 8);
  EXPECT_EQ(spec->worth.quality, DefaultQuality(spec->name, spec->bytes).quality);
  COTERIE_ASSERT_OK_AND_ASSIGN(spec, catalog.Find("other"));
  EXPECT_THAT(spec->base_id, StartsWith("file:"));
}

TEST_F(ExpertCatalogTest, WithoutAHashTheIdFollowsTheContent) {
  AddModel("one");
  const std::string first = Open().experts()[0].base_id;
  EXPECT_EQ(Open().experts()[0].base_id, first);
  Write("blobs/one", "GGUF with more");
  EXPECT_NE(Open().experts()[0].base_id, first);
}

TEST_F(ExpertCatalogTest, TwoPathsToOneFileAreOneBase) {
  AddModel("one");
  fs::create_symlink(home_ / "blobs/one", home_ / "link.gguf");
  COTERIE_ASSERT_OK_AND_ASSIGN(const ExpertSpec link,
                               DescribeModelFile("two", (home_ / "link.gguf").string(), ""));
  EXPECT_EQ(link.base_id, Open().experts()[0].base_id);
}

TEST_F(ExpertCatalogTest, FoldersAndOtherFormatsAreLeftOutSilently) {
  AddModel("good");
  AddModel("safetensors", "", "\x10\0\0\0{}");
  fs::create_directories(home_ / "blobs/minilm");
  WriteManifest("minilm", R"({"name": "minilm", "path": "blobs/minilm"})");
  Write("models/good.gguf", "not a manifest");
  const ExpertCatalog catalog = Open();
  EXPECT_THAT(Names(catalog), ElementsAre("good"));
  EXPECT_THAT(catalog.problems(), IsEmpty());
}

TEST_F(ExpertCatalogTest, AWrongManifestIsReportedAndTheOthersWork) {
  AddModel("good");
  const auto expect_problem = [&](const std::string& manifest, const std::string& words) {
    WriteManifest("wrong", manifest);
    const ExpertCatalog catalog = Open();
    EXPECT_THAT(Names(catalog), ElementsAre("good")) << manifest;
    EXPECT_THAT(catalog.problems(),
                ElementsAre(AllOf(HasSubstr("models/wrong.json: "), HasSubstr(words))));
  };
  expect_problem("", "empty");
  expect_problem("{\"name\": \"wrong\"", "not a JSON object");
  expect_problem("[1]", "not a JSON object");
  expect_problem(std::string(70000, ' '), "too long");
  expect_problem(R"({"path": "blobs/good"})", "has no \"name\"");
  expect_problem(R"({"name": "wrong"})", "has no \"path\"");
  expect_problem(R"({"name": 7, "path": "blobs/good"})", "\"name\" is no string");
  expect_problem(R"({"name": "a b", "path": "blobs/good"})", "letters");
  expect_problem(R"({"name": "wrong", "path": ""})", "not a path");
  expect_problem(R"({"name": "wrong", "path": "blobs/gone"})", "missing: path=");
  expect_problem(R"({"name": "wrong", "path": "blobs/good", "bytes": 9})", "bytes=8, expected=9");
  expect_problem(R"({"name": "wrong", "path": "blobs/good", "bytes": "8"})", "no integer");
  expect_problem(R"({"name": "wrong", "path": "blobs/good", "sha256": "12"})", "64 hexadecimal");
  expect_problem(R"({"name": "good", "path": "blobs/good"})", "same name: good");
}

TEST_F(ExpertCatalogTest, AStoreThatDoesNotExistHasNoExperts) {
  COTERIE_ASSERT_OK_AND_ASSIGN(const ExpertCatalog catalog,
                               ExpertCatalog::FromStore((home_ / "nowhere").string()));
  EXPECT_TRUE(catalog.experts().empty());
  EXPECT_THAT(catalog.Find("x"), StatusIs(absl::StatusCode::kNotFound, HasSubstr("are none")));
}

TEST_F(ExpertCatalogTest, AnUnknownNameIsAnsweredWithTheKnownOnes) {
  AddModel("a");
  AddModel("b");
  const ExpertCatalog catalog = Open();
  EXPECT_THAT(catalog.Find("c"), StatusIs(absl::StatusCode::kNotFound, HasSubstr("a, b")));
}

TEST_F(ExpertCatalogTest, AFolderAndAFileInPartsAreExpertsWithTheBytesOfAllTheirFiles) {
  fs::create_directories(home_ / "hf");
  Write("hf/config.json", "{}");
  Write("hf/model.safetensors.index.json",
        R"({"weight_map": {"a": "x.safetensors", "b": "y.safetensors", "c": "x.safetensors"}})");
  Write("hf/x.safetensors", "12345");
  Write("hf/y.safetensors", "678");
  WriteManifest("folder", R"({"name": "folder", "path": "hf", "bytes": 8})");
  Write("m-00001-of-00002.gguf", "GGUF1");
  Write("m-00002-of-00002.gguf", "GGUF234");
  WriteManifest("parts", R"({"name": "parts", "path": "m-00001-of-00002.gguf", "bytes": 12})");
  const ExpertCatalog catalog = Open();
  EXPECT_THAT(Names(catalog), ElementsAre("folder", "parts"));
  EXPECT_THAT(catalog.problems(), IsEmpty());
  COTERIE_ASSERT_OK_AND_ASSIGN(const ExpertSpec* folder, catalog.Find("folder"));
  EXPECT_EQ(folder->bytes, 8);
  COTERIE_ASSERT_OK_AND_ASSIGN(const ExpertSpec* parts, catalog.Find("parts"));
  EXPECT_EQ(parts->bytes, 12);
}

TEST_F(ExpertCatalogTest, AModelThatLacksOneOfItsFilesIsAProblem) {
  Write("m-00001-of-00002.gguf", "GGUF1");
  WriteManifest("parts", R"({"name": "parts", "path": "m-00001-of-00002.gguf"})");
  const ExpertCatalog catalog = Open();
  EXPECT_THAT(Names(catalog), IsEmpty());
  EXPECT_THAT(catalog.problems(), ElementsAre(HasSubstr("m-00002-of-00002.gguf")));
}

TEST_F(ExpertCatalogTest, ModelFilesThatCannotBeDescribedSayWhy) {
  const auto describe = [&](const char* name, const fs::path& path) {
    return DescribeModelFile(name, (home_ / path).string(), "");
  };
  Write("text", "hello");
  EXPECT_THAT(describe("x", "gone"), StatusIs(absl::StatusCode::kNotFound, HasSubstr("gone")));
  EXPECT_THAT(describe("x", "models"),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("not a file")));
  EXPECT_THAT(describe("x", "text"), StatusIs(absl::StatusCode::kDataLoss, HasSubstr("not GGUF")));
  EXPECT_THAT(describe("", "text"),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("name")));
}

TEST(ExpertCatalogSpecsTest, WrongSpecsAreRefused) {
  ExpertSpec spec;
  spec.name = "a";
  spec.base_path = "/a.gguf";
  EXPECT_THAT(ExpertCatalog::FromSpecs({spec}), IsOk());
  EXPECT_THAT(ExpertCatalog::FromSpecs({spec, spec}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("one name: a")));
  spec.worth.quality["code"] = 1.5;
  EXPECT_THAT(ExpertCatalog::FromSpecs({spec}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("domain=code, quality=1.5")));
  spec.worth.quality.clear();
  spec.base_path = "a.gguf";
  EXPECT_THAT(ExpertCatalog::FromSpecs({spec}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("not absolute")));
}

}  // namespace
}  // namespace coterie
