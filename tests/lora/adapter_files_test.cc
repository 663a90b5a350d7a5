// Adapters to files and back, and what they are bound to.

#include "lora/adapter_files.h"

#include <cmath>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "core/formats/gguf_file.h"
#include "core/formats/gguf_writer.h"
#include "core/formats/safetensors_file.h"
#include "tests/experts/tiny_adapter.h"
#include "tests/experts/tiny_model.h"
#include "tests/fuzz/safetensors_draft.h"
#include "tests/fuzz/scratch_folder.h"
#include "tests/status_matchers.h"

namespace coterie {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::StatusIs;

class AdapterFilesTest : public ::testing::TestWithParam<const char*> {
 protected:
  Adapter TinyAdapter() const {
    Adapter adapter;
    adapter.name = "home";
    adapter.base = {"sha256:aa", "tiny", spec_.architecture, "sha256:bb", "sha256:cc"};
    adapter.deltas = testing::TinyDeltas(spec_);
    return adapter;
  }

  // What an adapter adds to a matrix: files may move factors between A, B and the scale.
  static std::vector<double> Product(const LinearDelta& delta) {
    const size_t rank = static_cast<size_t>(delta.rank), in = delta.a.size() / rank;
    std::vector<double> product;
    for (size_t row = 0; row < delta.b.size() / rank; ++row) {
      for (size_t column = 0; column < in; ++column) {
        double sum = 0;
        for (size_t k = 0; k < rank; ++k) {
          sum += static_cast<double>(delta.b[row * rank + k]) * delta.a[k * in + column];
        }
        product.push_back(delta.scale * sum);
      }
    }
    return product;
  }

  static void ExpectSame(const Adapter& read, const Adapter& written) {
    EXPECT_EQ(read.name, written.name);
    EXPECT_EQ(read.base.id, written.base.id);
    EXPECT_EQ(read.base.name, written.base.name);
    EXPECT_EQ(read.base.architecture, written.base.architecture);
    EXPECT_EQ(read.base.tokenizer, written.base.tokenizer);
    EXPECT_EQ(read.base.chat_template, written.base.chat_template);
    ASSERT_EQ(read.deltas.size(), written.deltas.size());
    for (size_t i = 0; i < read.deltas.size(); ++i) {
      EXPECT_EQ(read.deltas[i].layer, written.deltas[i].layer);
      EXPECT_EQ(read.deltas[i].linear, written.deltas[i].linear);
      const std::vector<double> a = Product(read.deltas[i]), b = Product(written.deltas[i]);
      ASSERT_EQ(a.size(), b.size());
      for (size_t k = 0; k < a.size(); ++k) ASSERT_NEAR(a[k], b[k], 1e-6 * (1 + std::fabs(b[k])));
    }
  }

  const ArchSpec spec_ = testing::MakeTinyModel(GetParam()).spec;
  const testing::ScratchFolder folder_;
};

TEST_P(AdapterFilesTest, APeftFolderGivesTheAdapterBackBitForBit) {
  const Adapter adapter = TinyAdapter();
  COTERIE_ASSERT_OK(WritePeftAdapter(adapter, folder_.path("peft")));
  COTERIE_ASSERT_OK_AND_ASSIGN(const Adapter read, ReadAdapter(folder_.path("peft"), spec_));
  ExpectSame(read, adapter);
  for (size_t i = 0; i < read.deltas.size(); ++i) {
    EXPECT_EQ(read.deltas[i].a, adapter.deltas[i].a);
    EXPECT_EQ(read.deltas[i].b, adapter.deltas[i].b);
    EXPECT_EQ(read.deltas[i].scale, adapter.deltas[i].scale);
  }
}

TEST_P(AdapterFilesTest, EqualAdaptersGiveEqualBytes) {
  COTERIE_ASSERT_OK(WritePeftAdapter(TinyAdapter(), folder_.path("a")));
  COTERIE_ASSERT_OK(WritePeftAdapter(TinyAdapter(), folder_.path("b")));
  for (const absl::string_view file : {kAdapterConfigFile, kAdapterTensorsFile}) {
    EXPECT_EQ(testing::ReadFile(folder_.path("a") + "/" + std::string(file)),
              testing::ReadFile(folder_.path("b") + "/" + std::string(file)));
  }
}

// Different alphas are folded into B, and the factor of rsLoRA is in the scales already.
TEST_P(AdapterFilesTest, AGgufFileGivesTheAdapterBack) {
  Adapter adapter = TinyAdapter();
  adapter.rslora = true;
  COTERIE_ASSERT_OK(WriteGgufAdapter(adapter, spec_, folder_.path("a.gguf")));
  COTERIE_ASSERT_OK_AND_ASSIGN(const Adapter read, ReadAdapter(folder_.path("a.gguf"), spec_));
  ExpectSame(read, adapter);
}

TEST_P(AdapterFilesTest, GgufRowsOfQAndKArePermutedForLlamaOnly) {
  const Adapter adapter = TinyAdapter();
  COTERIE_ASSERT_OK(WriteGgufAdapter(adapter, spec_, folder_.path("a.gguf")));
  COTERIE_ASSERT_OK_AND_ASSIGN(const auto file, GgufFile::Open(folder_.path("a.gguf")));
  EXPECT_THAT(file->Describe("adapter.lora.alpha"), HasSubstr("f32"));
  int n_checked = 0;
  for (const LinearDelta& delta : adapter.deltas) {
    if (delta.linear != LayerLinear::kK && delta.linear != LayerLinear::kV) continue;
    const bool is_k = delta.linear == LayerLinear::kK;
    const std::string name =
        "blk." + std::to_string(delta.layer) + (is_k ? ".attn_k" : ".attn_v") + ".weight.lora_b";
    COTERIE_ASSERT_OK_AND_ASSIGN(const TensorRef tensor, file->Find(name));
    const float* values = reinterpret_cast<const float*>(tensor.bytes.data());
    const size_t rank = static_cast<size_t>(delta.rank);
    const size_t dim = static_cast<size_t>(spec_.head_dim);
    // Row 1 of half 0 stands third, behind row 0 of half 1.
    const bool permuted = is_k && spec_.architecture == "llama";
    const size_t at = permuted ? 2 : 1, second = permuted ? 1 : dim / 2;
    const auto ratio = [&](size_t stored, size_t own) {
      return values[stored * rank] / delta.b[own * rank];
    };
    if (delta.b[rank] == 0 || delta.b[dim / 2 * rank] == 0) continue;
    EXPECT_FLOAT_EQ(ratio(at, 1), ratio(second, dim / 2)) << name;
    ++n_checked;
  }
  EXPECT_GT(n_checked, 3);
}

TEST_P(AdapterFilesTest, ServedRowsAreThoseOfTheBaseAndComeBack) {
  const Adapter adapter = TinyAdapter();
  const std::vector<LinearDelta> served = ServedDeltas(adapter, spec_);
  bool any_moved = false;
  for (size_t i = 0; i < served.size(); ++i) any_moved |= served[i].b != adapter.deltas[i].b;
  EXPECT_EQ(any_moved, spec_.rope == RopeKind::kAdjacent);
  const std::vector<LinearDelta> back = DeltasFromServed(served, spec_);
  for (size_t i = 0; i < back.size(); ++i) EXPECT_EQ(back[i].b, adapter.deltas[i].b);
}

TEST_P(AdapterFilesTest, TheWrongBaseIsRefusedWithBothIds) {
  Adapter adapter = TinyAdapter();
  BaseIdentity base = adapter.base;
  EXPECT_THAT(Bind(adapter, spec_, base), testing::IsOkAndHolds(""));
  base.id = "sha256:dd";
  EXPECT_THAT(Bind(adapter, spec_, base),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       AllOf(HasSubstr("sha256:aa"), HasSubstr("sha256:dd"))));
  base = adapter.base;
  base.tokenizer = "sha256:ee";
  EXPECT_THAT(Bind(adapter, spec_, base),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("another tokenizer")));
  base = adapter.base;
  base.chat_template = "sha256:ff";
  EXPECT_THAT(Bind(adapter, spec_, base),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("another chat template")));
  ArchSpec other = spec_;
  other.d_ff *= 2;
  EXPECT_THAT(Bind(adapter, other, adapter.base),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("extents")));
}

// As where a model is opened by its path: an export must not lose what the file said.
TEST_P(AdapterFilesTest, ABaseThatIsNotKnownByHashLeavesTheAdaptersOwn) {
  Adapter adapter = TinyAdapter();
  BaseIdentity base = adapter.base;
  base.id = base.name = "";
  EXPECT_THAT(Bind(adapter, spec_, base), testing::IsOkAndHolds(""));
  EXPECT_EQ(adapter.base.id, "sha256:aa");
  EXPECT_EQ(adapter.base.name, "tiny");
  adapter.base.id = "";
  COTERIE_ASSERT_OK_AND_ASSIGN(const std::string warning, Bind(adapter, spec_, base));
  EXPECT_THAT(warning, HasSubstr("shapes only; it says that it was trained on 'tiny'"));
}

TEST_P(AdapterFilesTest, AFileThatNamesNoHashIsBoundToTheBaseNamedWithAWarning) {
  Adapter adapter = TinyAdapter();
  const BaseIdentity base = adapter.base;
  adapter.base = {};
  adapter.base.name = "Some-Org/Tiny-Instruct";
  COTERIE_ASSERT_OK_AND_ASSIGN(const std::string warning, Bind(adapter, spec_, base));
  EXPECT_THAT(warning, AllOf(HasSubstr("names no base by hash"), HasSubstr("tiny (sha256:aa)"),
                             HasSubstr("trained on 'Some-Org/Tiny-Instruct'")));
  EXPECT_EQ(warning.find("another model"), std::string::npos);
  EXPECT_EQ(adapter.base.id, "sha256:aa");
  EXPECT_EQ(adapter.base.tokenizer, "sha256:bb");
  adapter.base = {};
  adapter.base.name = "mistralai/Mistral-7B";
  COTERIE_ASSERT_OK_AND_ASSIGN(const std::string doubt, Bind(adapter, spec_, base));
  EXPECT_THAT(doubt, HasSubstr("looks like another model"));
}

INSTANTIATE_TEST_SUITE_P(All, AdapterFilesTest, ::testing::Values("llama", "qwen2", "gemma3"));

// Hostile files: a valid one with one thing changed.
class BadAdapterFileTest : public ::testing::Test {
 protected:
  void SetUp() override {
    adapter_.name = "home";
    for (int64_t layer = 0; layer < 2; ++layer) {
      LinearDelta delta{layer, LayerLinear::kUp, 2, 1.0f, {}, {}};
      delta.a.assign(static_cast<size_t>(2 * spec_.d_model), 0.5f);
      delta.b.assign(static_cast<size_t>(2 * spec_.d_ff), 0.25f);
      adapter_.deltas.push_back(delta);
    }
    COTERIE_ASSERT_OK(WritePeftAdapter(adapter_, folder_.path("a")));
  }

  using Tensor = testing::DraftTensor;

  // The folder with other tensors.
  absl::Status ReadWith(const std::vector<Tensor>& tensors) {
    folder_.Write("a/adapter_model.safetensors", testing::SafetensorsBytes(tensors));
    return ReadPeftAdapter(folder_.path("a")).status();
  }

  static constexpr char kA[] = "base_model.model.model.layers.0.mlp.up_proj.lora_A.weight";
  static constexpr char kB[] = "base_model.model.model.layers.0.mlp.up_proj.lora_B.weight";

  const ArchSpec spec_ = testing::MakeTinyModel("llama").spec;
  const testing::ScratchFolder folder_;
  Adapter adapter_;
};

TEST_F(BadAdapterFileTest, TensorsThatAreNoLoraMatricesAreRefusedByName) {
  COTERIE_EXPECT_OK(ReadWith({{kA, {2, 64}}, {kB, {96, 2}}}));
  for (const char* name :
       {"base_model.model.model.layers.0.mlp.up_proj.lora_magnitude_vector",
        "base_model.model.model.embed_tokens.lora_embedding_A", "base_model.model.lm_head.weight",
        "base_model.model.model.layers.00.mlp.up_proj.lora_A.weight",
        "base_model.model.model.layers.-1.mlp.up_proj.lora_A.weight",
        "base_model.model.model.layers.0.mlp.up_proj.lora_A.default.weight"}) {
    EXPECT_THAT(ReadWith({{kA, {2, 64}}, {kB, {96, 2}}, {name, {2, 64}}}),
                StatusIs(absl::StatusCode::kUnimplemented, HasSubstr(name)));
  }
  EXPECT_THAT(ReadWith({{kA, {2, 64}, 0.5f, SafetensorsType::kI32}, {kB, {96, 2}}}),
              StatusIs(absl::StatusCode::kUnimplemented, AllOf(HasSubstr("I32"), HasSubstr(kA))));
}

TEST_F(BadAdapterFileTest, UnpairedAndMisshapenMatricesAreRefused) {
  EXPECT_THAT(ReadWith({{kA, {2, 64}}}),
              StatusIs(absl::StatusCode::kDataLoss, AllOf(HasSubstr("no B"), HasSubstr(kA))));
  EXPECT_THAT(ReadWith({{kB, {96, 2}}}),
              StatusIs(absl::StatusCode::kDataLoss, AllOf(HasSubstr("no A"), HasSubstr(kB))));
  EXPECT_THAT(ReadWith({{kA, {2, 64}}, {kB, {96, 3}}}),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("different ranks")));
  EXPECT_THAT(ReadWith({{kA, {128}}, {kB, {96, 2}}}),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("no matrix")));
  EXPECT_THAT(ReadWith({{kA, {0, 64}}, {kB, {96, 0}}}),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("no matrix")));
  EXPECT_THAT(ReadWith({{kA, {5000, 1}}, {kB, {1, 5000}}}),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("too large")));
  EXPECT_THAT(ReadWith({}), StatusIs(absl::StatusCode::kDataLoss, HasSubstr("no tensors")));
  EXPECT_THAT(ReadWith({{kA, {2, 64}, NAN}, {kB, {96, 2}}}),
              StatusIs(absl::StatusCode::kDataLoss, AllOf(HasSubstr("not finite"), HasSubstr(kA))));
}

TEST_F(BadAdapterFileTest, ARankThatIsNotTheConfigurationsIsRefused) {
  EXPECT_THAT(ReadWith({{kA, {3, 64}}, {kB, {96, 3}}}),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("rank=2, matrices have 3")));
}

TEST_F(BadAdapterFileTest, ExtentsOfAnotherBaseAreRefusedBeforeAnythingIsServed) {
  adapter_.deltas[0].b.resize(10);
  EXPECT_THAT(Serve(adapter_, spec_, "home@1"),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("extents")));
  EXPECT_THAT(WriteGgufAdapter(adapter_, spec_, folder_.path("x.gguf")),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("extents")));
}

TEST_F(BadAdapterFileTest, GgufFilesThatAreNoSuchAdapterAreRefused) {
  const std::string path = folder_.path("a.gguf");
  const std::vector<float> values(512, 0.5f);
  const absl::Span<const uint8_t> bytes = {reinterpret_cast<const uint8_t*>(values.data()), 2048};
  const auto read = [&](const char* type, const char* arch, double alpha, const char* tensor,
                        bool alora) {
    GgufWriter writer;
    writer.SetString("general.type", type);
    writer.SetString("general.architecture", arch);
    writer.SetString("adapter.type", "lora");
    writer.SetFloat32("adapter.lora.alpha", static_cast<float>(alpha));
    if (alora) writer.SetIntArray("adapter.alora.invocation_tokens", {1});
    writer.AddTensor("blk.0.ffn_up.weight.lora_a", TensorType::kF32, {2, 64},
                     bytes.first(2 * 64 * 4));
    writer.AddTensor("blk.0.ffn_up.weight.lora_b", TensorType::kF32, {96, 2},
                     bytes.first(96 * 2 * 4));
    if (tensor != nullptr) {
      writer.AddTensor(tensor, TensorType::kF32, {2, 64}, bytes.first(2 * 64 * 4));
    }
    EXPECT_THAT(writer.Write(path), testing::IsOk());
    return ReadGgufAdapter(path, spec_);
  };
  const auto zero_alpha = read("adapter", "llama", 0, nullptr, false);
  COTERIE_ASSERT_OK(zero_alpha.status());
  EXPECT_EQ(zero_alpha->deltas[0].scale, 1.0f);
  EXPECT_THAT(read("model", "llama", 4, nullptr, false).status(),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("general.type")));
  EXPECT_THAT(read("adapter", "qwen2", 4, nullptr, false).status(),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("general.architecture")));
  EXPECT_THAT(read("adapter", "llama", NAN, nullptr, false).status(),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("adapter.lora.alpha")));
  EXPECT_THAT(read("adapter", "llama", 4, nullptr, true).status(),
              StatusIs(absl::StatusCode::kUnimplemented, HasSubstr("alora")));
  for (const char* name : {"token_embd.weight.lora_a", "output.weight.lora_a",
                           "blk.0.attn_norm.weight", "blk.01.ffn_up.weight.lora_a"}) {
    EXPECT_THAT(read("adapter", "llama", 4, name, false).status(),
                StatusIs(absl::StatusCode::kUnimplemented, HasSubstr(name)));
  }
  EXPECT_THAT(read("adapter", "llama", 4, "blk.9.ffn_up.weight.lora_a", false).status(),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("no B")));
}

}  // namespace
}  // namespace coterie
