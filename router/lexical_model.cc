#include "router/lexical_model.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <map>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"

#include "core/base/status_macros.h"

namespace coterie {
namespace {

constexpr int64_t kMaxFeatures = 4'000'000;
constexpr size_t kShownFeatures = 8;
// Which features and lengths a file was fitted with. 1, where the key is missing, had other ones.
constexpr char kFeaturesKey[] = "router.lexical.features";
constexpr int64_t kFeatures = 2;
// What words and letters weigh in a vector, one beside the other: chosen, as the lengths of their
// runs, on the validation part of CLINC150.
constexpr std::array<double, kFeatureBlocks> kBlockLengths = {0.5, 1.0};
// Hashes of words stand a few places from where they belong; only made-up ones crowd.
constexpr size_t kMaxProbes = 1024;

absl::Status Damaged(const GgufFile& file, absl::string_view what) {
  return absl::DataLossError(
      absl::StrCat("damaged router file: lexical model: ", what, ": file=", file.path()));
}

absl::StatusOr<std::vector<float>> ReadFloats(const GgufFile& file, absl::string_view name,
                                              const std::vector<int64_t>& shape) {
  COTERIE_ASSIGN_OR_RETURN(const TensorRef tensor, file.Find(name));
  if (tensor.type != TensorType::kF32 || tensor.shape != shape) {
    return Damaged(file, absl::StrCat("a tensor has the wrong type or shape: tensor=", name));
  }
  std::vector<float> values(tensor.bytes.size() / sizeof(float));
  std::memcpy(values.data(), tensor.bytes.data(), tensor.bytes.size());
  if (!std::all_of(values.begin(), values.end(), [](float v) { return std::isfinite(v); })) {
    return Damaged(file, absl::StrCat("a value is not finite: tensor=", name));
  }
  return values;
}

absl::StatusOr<std::vector<uint32_t>> ReadHashes(const GgufFile& file) {
  COTERIE_ASSIGN_OR_RETURN(const auto wide, file.GetIntArray("router.lexical.hashes"));
  if (wide.empty() || static_cast<int64_t>(wide.size()) > kMaxFeatures) {
    return Damaged(file, absl::StrCat("no features or too many: features=", wide.size()));
  }
  std::vector<uint32_t> hashes;
  hashes.reserve(wide.size());
  for (size_t i = 0; i < wide.size(); ++i) {
    if (wide[i] < 0 || wide[i] > UINT32_MAX || (i > 0 && wide[i] <= wide[i - 1])) {
      return Damaged(file, "the hashes are out of range or order");
    }
    hashes.push_back(static_cast<uint32_t>(wide[i]));
  }
  return hashes;
}

absl::Span<const uint8_t> AsBytes(const std::vector<float>& values) {
  return {reinterpret_cast<const uint8_t*>(values.data()), values.size() * sizeof(float)};
}

}  // namespace

LexicalVocabulary::LexicalVocabulary(std::vector<uint32_t> hashes, std::vector<float> idf)
    : hashes_(std::move(hashes)), idf_(std::move(idf)) {
  int bits = 4;
  while ((size_t{1} << bits) < 2 * hashes_.size()) ++bits;
  shift_ = 64 - bits;
  slots_.assign(size_t{1} << bits, 0);
  const size_t mask = slots_.size() - 1;
  for (size_t i = 0; i < hashes_.size(); ++i) {
    size_t slot = hashes_[i] * 0x9e3779b97f4a7c15ull >> shift_;
    size_t n_probes = 0;
    while (slots_[slot] != 0 && n_probes++ < kMaxProbes) slot = (slot + 1) & mask;
    is_crowded_ = slots_[slot] != 0;
    if (is_crowded_) return;
    slots_[slot] = uint64_t{hashes_[i]} << 32 | (i + 1);
  }
}

int64_t LexicalVocabulary::Find(uint32_t hash) const {
  if (slots_.empty()) return -1;
  const size_t mask = slots_.size() - 1;
  for (size_t slot = hash * 0x9e3779b97f4a7c15ull >> shift_; slots_[slot] != 0;
       slot = (slot + 1) & mask) {
    if (slots_[slot] >> 32 == hash) return static_cast<int64_t>(slots_[slot] & 0xffffffff) - 1;
  }
  return -1;
}

PromptVector LexicalVocabulary::Vector(absl::string_view cut) const {
  // Index and block of each occurrence; sorting counts them without a hash table.
  std::vector<std::pair<uint32_t, FeatureBlock>> found;
  ForEachFeature(cut, [&](const TextFeature& feature) {
    const int64_t index = Find(feature.hash);
    if (index >= 0) found.emplace_back(static_cast<uint32_t>(index), feature.block);
  });
  std::sort(found.begin(), found.end());
  PromptVector vector;
  std::vector<FeatureBlock> blocks;
  std::array<double, kFeatureBlocks> squares{};
  for (size_t i = 0; i < found.size();) {
    size_t end = i;
    while (end < found.size() && found[end].first == found[i].first) ++end;
    const auto [index, block] = found[i];
    const float value = (1.0f + std::log(static_cast<float>(end - i))) * idf_[index];
    vector.indices.push_back(index);
    vector.values.push_back(value);
    blocks.push_back(block);
    squares[static_cast<int>(block)] += static_cast<double>(value) * value;
    i = end;
  }
  std::array<double, kFeatureBlocks> factors{};  // Each block to its length, all together to 1.
  double whole = 0.0;
  for (int b = 0; b < kFeatureBlocks; ++b) {
    if (squares[b] > 0.0) whole += kBlockLengths[b] * kBlockLengths[b];
  }
  for (int b = 0; b < kFeatureBlocks; ++b) {
    if (squares[b] > 0.0) factors[b] = kBlockLengths[b] / std::sqrt(squares[b] * whole);
  }
  for (size_t i = 0; i < blocks.size(); ++i) {
    const double factor = factors[static_cast<int>(blocks[i])];
    vector.values[i] = static_cast<float>(vector.values[i] * factor);
  }
  return vector;
}

int64_t LexicalVocabulary::memory_bytes() const {
  return static_cast<int64_t>(hashes_.capacity() * sizeof(uint32_t) +
                              idf_.capacity() * sizeof(float) + slots_.size() * sizeof(uint64_t));
}

LexicalModel::LexicalModel(LexicalVocabulary vocabulary, std::vector<float> weights,
                           std::vector<float> bias)
    : vocabulary_(std::move(vocabulary)), weights_(std::move(weights)), bias_(std::move(bias)) {}

absl::StatusOr<std::unique_ptr<const LexicalModel>> LexicalModel::Open(const GgufFile& file,
                                                                       int64_t n_domains) {
  COTERIE_ASSIGN_OR_RETURN(const int64_t features, file.GetInt(kFeaturesKey, 1));
  if (features != kFeatures) {
    return absl::UnimplementedError(absl::StrCat(
        "the router was fitted with other features than this version reads; fit it again, as with "
        "`coterie router fit`: file=",
        file.path(), ", ", kFeaturesKey, "=", features, ", read here=", kFeatures));
  }
  COTERIE_ASSIGN_OR_RETURN(std::vector<uint32_t> hashes, ReadHashes(file));
  const auto n = static_cast<int64_t>(hashes.size());
  COTERIE_ASSIGN_OR_RETURN(std::vector<float> idf, ReadFloats(file, "lexical.idf", {n}));
  COTERIE_ASSIGN_OR_RETURN(std::vector<float> weights,
                           ReadFloats(file, "lexical.weight", {n, n_domains}));
  COTERIE_ASSIGN_OR_RETURN(std::vector<float> bias, ReadFloats(file, "lexical.bias", {n_domains}));
  LexicalVocabulary vocabulary(std::move(hashes), std::move(idf));
  if (vocabulary.is_crowded()) {
    return Damaged(file, "the hashes collide: key=router.lexical.hashes");
  }
  return std::make_unique<const LexicalModel>(std::move(vocabulary), std::move(weights),
                                              std::move(bias));
}

absl::StatusOr<int64_t> LexicalModel::EstimateBytes(const GgufFile& file) {
  COTERIE_ASSIGN_OR_RETURN(const TensorRef idf, file.Find("lexical.idf"));
  const auto n_features = static_cast<int64_t>(idf.bytes.size() / sizeof(float));
  // Weights and idf as in the file, hashes, and slots: at most four per feature, at least 16.
  return file.tensor_bytes() + n_features * (4 + 4 * 8) + 16 * 8;
}

absl::StatusOr<ModelReading> LexicalModel::Read(absl::string_view cut, bool want_vector) const {
  ModelReading reading;
  reading.vector = vocabulary_.Vector(cut);
  const size_t n = bias_.size();
  reading.logits.assign(bias_.begin(), bias_.end());
  for (size_t i = 0; i < reading.vector.indices.size(); ++i) {
    const float* weights = weights_.data() + reading.vector.indices[i] * n;
    for (size_t d = 0; d < n; ++d) {
      reading.logits[d] += static_cast<double>(reading.vector.values[i]) * weights[d];
    }
  }
  if (!want_vector) reading.vector = {};
  return reading;
}

std::vector<DecidingFeature> LexicalModel::Decide(absl::string_view cut, int domain,
                                                  int runner_up) const {
  const PromptVector vector = vocabulary_.Vector(cut);
  const auto n = static_cast<int64_t>(bias_.size());
  // A feature's share is split over its occurrences, and those of letters go to their word.
  struct Occurrence {
    size_t at;      // In `vector`.
    double* share;  // Of its text.
  };
  std::vector<Occurrence> occurrences;
  std::vector<int> n_occurrences(vector.indices.size());
  std::map<std::string, double, std::less<>> shares;
  std::string last_text;  // The letters of a word come one after another.
  double* last_share = nullptr;
  ForEachFeature(cut, [&](const TextFeature& feature) {
    const int64_t index = vocabulary_.Find(feature.hash);
    if (index < 0) return;
    const auto found = std::lower_bound(vector.indices.begin(), vector.indices.end(), index);
    const auto at = static_cast<size_t>(found - vector.indices.begin());
    ++n_occurrences[at];
    if (last_share == nullptr || feature.text != last_text) {
      last_text.assign(feature.text.data(), feature.text.size());
      last_share = &shares[last_text];
    }
    occurrences.push_back({at, last_share});
  });
  for (const auto& [at, share] : occurrences) {
    const float* weights = weights_.data() + vector.indices[at] * n;
    *share += vector.values[at] * (weights[domain] - weights[runner_up]) / n_occurrences[at];
  }
  std::vector<DecidingFeature> features;
  for (const auto& [text, weight] : shares) features.push_back({text, weight});
  std::sort(features.begin(), features.end(),
            [](const auto& a, const auto& b) { return std::abs(a.weight) > std::abs(b.weight); });
  if (features.size() > kShownFeatures) features.resize(kShownFeatures);
  return features;
}

void LexicalModel::AppendTo(GgufWriter& file) const {
  const absl::Span<const uint32_t> hashes = vocabulary_.hashes();
  file.SetInt(kFeaturesKey, kFeatures);
  file.SetIntArray("router.lexical.hashes", std::vector<int64_t>(hashes.begin(), hashes.end()));
  const absl::Span<const float> idf = vocabulary_.idf();
  file.AddTensor("lexical.idf", TensorType::kF32, {vocabulary_.size()},
                 {reinterpret_cast<const uint8_t*>(idf.data()), idf.size() * sizeof(float)});
  file.AddTensor("lexical.weight", TensorType::kF32, {vocabulary_.size(), n_domains()},
                 AsBytes(weights_));
  file.AddTensor("lexical.bias", TensorType::kF32, {n_domains()}, AsBytes(bias_));
}

int64_t LexicalModel::memory_bytes() const {
  return vocabulary_.memory_bytes() +
         static_cast<int64_t>((weights_.capacity() + bias_.capacity()) * sizeof(float));
}

}  // namespace coterie
