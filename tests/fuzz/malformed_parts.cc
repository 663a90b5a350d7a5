// GGUF files cut in two by llama.cpp's gguf-split, of which one part is wrong.

#include <functional>
#include <limits>
#include <utility>

#include "tests/fuzz/gguf_draft.h"
#include "tests/fuzz/malformed_file.h"

namespace coterie::testing {
namespace {

constexpr auto kDamaged = absl::StatusCode::kDataLoss;
constexpr auto kMissing = absl::StatusCode::kNotFound;
constexpr auto kMistake = absl::StatusCode::kInvalidArgument;
constexpr int64_t kMax = std::numeric_limits<int64_t>::max();
constexpr int64_t kMin = std::numeric_limits<int64_t>::min();
constexpr int64_t kTensors = 11;  // Of TinyModel.

// The tensors that are in the second part.
constexpr const char* kSecond[] = {"blk.0.ffn_gate.weight", "blk.0.ffn_up.weight"};

GgufDraft& SetPlace(GgufDraft& part, int64_t number) {
  return part.Set("split.no", number)
      .Set("split.count", int64_t{2})
      .Set("split.tensors.count", kTensors);
}

GgufDraft FirstPart() {
  GgufDraft part = TinyModel();
  for (const char* tensor : kSecond) part.DropTensor(tensor);
  return SetPlace(part, 0);
}

GgufDraft SecondPart() {
  GgufDraft part;
  for (const char* tensor : kSecond) part.SetTensor(tensor, TensorType::kQ8_0, {32, 32});
  return SetPlace(part, 1);
}

class Mutations {
 public:
  explicit Mutations(GgufDraft valid) : valid_(std::move(valid)) {}

  void Add(const char* name, const std::function<void(GgufDraft&)>& change, const char* field,
           absl::StatusCode code = kDamaged) {
    GgufDraft draft = valid_;
    change(draft);
    files_.push_back({name, draft.Bytes(), code, field});
  }
  void Key(const char* name, const char* key, GgufDraft::Value value, const char* field,
           absl::StatusCode code = kDamaged) {
    Add(
        name, [&](GgufDraft& draft) { draft.Set(key, value); }, field, code);
  }
  void Without(const char* name, const char* key, const char* field,
               absl::StatusCode code = kDamaged) {
    Add(
        name, [&](GgufDraft& draft) { draft.Drop(key); }, field, code);
  }
  std::vector<MalformedFile> Take() { return std::move(files_); }

 private:
  GgufDraft valid_;
  std::vector<MalformedFile> files_;
};

}  // namespace

std::string ValidFirstPart() { return FirstPart().Bytes(); }
std::string ValidSecondPart() { return SecondPart().Bytes(); }

std::vector<MalformedFile> MalformedFirstParts() {
  Mutations m(FirstPart());
  m.Key("CountNegative", "split.count", int64_t{-1}, "split.count=-1");
  m.Key("CountLeast", "split.count", kMin, "split.count=-9223372036854775808");
  m.Key("CountHuge", "split.count", kMax, "parts=9223372036854775807");
  m.Key("CountOther", "split.count", int64_t{3}, "parts=3");
  m.Key("CountOne", "split.count", int64_t{1}, "tensor=blk.0.ffn_gate.weight", kMissing);
  m.Without("CountMissing", "split.count", "tensor=blk.0.ffn_gate.weight", kMissing);
  m.Key("CountText", "split.count", "2", "split.count");
  m.Key("NumberOfTheSecond", "split.no", int64_t{1}, "part=2 of 2", kMistake);
  m.Key("NumberOfNone", "split.no", int64_t{2}, "split.no=2");
  m.Key("NumberNegative", "split.no", int64_t{-1}, "split.no=-1");
  m.Key("NumberHuge", "split.no", kMax, "split.no=9223372036854775807");
  m.Key("NumberList", "split.no", std::vector<int64_t>{0}, "split.no");
  m.Without("TotalMissing", "split.tensors.count", "split.tensors.count", kMissing);
  m.Key("TotalText", "split.tensors.count", "11", "split.tensors.count");
  m.Key("TotalOther", "split.tensors.count", kTensors + 1, "wanted 12");
  m.Add(
      "TensorsFewer", [](GgufDraft& part) { part.DropTensor("blk.0.attn_q.weight"); },
      "announced=11, found=10");
  m.Add(
      "TensorsMore",
      [](GgufDraft& part) {
        part.SetTensor("output.weight", TensorType::kF32, {4, 32});
      },
      "announced=11, found=12");
  m.Add(
      "TensorInBoth",
      [](GgufDraft& part) {
        part.SetTensor(kSecond[0], TensorType::kQ8_0, {32, 32});
      },
      "stands in two parts");
  return m.Take();
}

std::vector<MalformedFile> MalformedSecondParts() {
  Mutations m(SecondPart());
  m.Key("NumberOfTheFirst", "split.no", int64_t{0}, "split.no=0 (wanted 1)");
  m.Key("NumberHuge", "split.no", kMax, "wanted 1");
  m.Without("NumberMissing", "split.no", "split.no=-1 (wanted 1)");
  m.Key("NumberText", "split.no", "1", "split.no");
  m.Key("CountOther", "split.count", int64_t{3}, "split.count=3 (wanted 2)");
  m.Without("CountMissing", "split.count", "wanted 2");
  m.Key("TotalOther", "split.tensors.count", int64_t{10}, "=10 (wanted 11)");
  m.Without("TotalMissing", "split.tensors.count", "wanted 11");
  m.Add(
      "TensorInBoth",
      [](GgufDraft& part) { part.SetTensor("output_norm.weight", TensorType::kF32, {32}); },
      "stands in two parts");
  std::vector<MalformedFile> files = m.Take();
  for (MalformedFile& file : MalformedGguf()) files.push_back(std::move(file));
  return files;
}

}  // namespace coterie::testing
