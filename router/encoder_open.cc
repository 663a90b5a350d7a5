// Reads an encoder from its file: nothing is used before it is checked.

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

#include "core/base/status_macros.h"
#include "core/formats/tokenizer_vocabulary.h"
#include "router/encoder.h"
#include "router/encoder_scratch.h"

namespace coterie {
namespace {

constexpr char kVocabularyKey[] = "router.encoder.vocabulary";
// Every string of the training's provenance that a saved copy keeps.
constexpr absl::string_view kKept[] = {"general.name",
                                       "general.license",
                                       "general.description",
                                       "router.training.base",
                                       "router.training.data",
                                       "router.training.recipe",
                                       "router.training.calibration"};

absl::Status Damaged(const GgufFile& file, absl::string_view what) {
  return absl::DataLossError(absl::StrCat("damaged router file: ", what, ": file=", file.path()));
}

absl::StatusOr<int64_t> IntIn(const GgufFile& file, absl::string_view key, int64_t low,
                              int64_t high) {
  COTERIE_ASSIGN_OR_RETURN(const int64_t value, file.GetInt(key));
  if (value < low || value > high) {
    return Damaged(file, absl::StrCat("a value is not in [", low, ", ", high, "]: key=", key,
                                      ", value=", value));
  }
  return value;
}

absl::StatusOr<EncoderShape> ReadShape(const GgufFile& file) {
  EncoderShape shape;
  COTERIE_ASSIGN_OR_RETURN(shape.n_layers, IntIn(file, "router.encoder.layers", 1, 48));
  COTERIE_ASSIGN_OR_RETURN(shape.n_heads, IntIn(file, "router.encoder.heads", 1, 64));
  COTERIE_ASSIGN_OR_RETURN(shape.d_model, IntIn(file, "router.encoder.width", 32, 2048));
  COTERIE_ASSIGN_OR_RETURN(shape.d_ff, IntIn(file, "router.encoder.ff_width", 32, 8192));
  COTERIE_ASSIGN_OR_RETURN(shape.max_tokens, IntIn(file, "router.encoder.max_tokens", 4, 512));
  COTERIE_ASSIGN_OR_RETURN(shape.tail_tokens,
                           IntIn(file, "router.encoder.tail_tokens", 0, shape.max_tokens - 2));
  COTERIE_ASSIGN_OR_RETURN(const double epsilon, file.GetFloat("router.encoder.epsilon"));
  shape.epsilon = static_cast<float>(epsilon);
  if (!(epsilon >= 0.0 && epsilon < 1.0)) return Damaged(file, "the norm's epsilon is not small");
  if (shape.d_model % kActivationBlock != 0 || shape.d_ff % kActivationBlock != 0 ||
      shape.d_model % shape.n_heads != 0 || shape.head_dim() % 16 != 0) {
    return Damaged(file,
                   absl::StrCat("widths do not divide into blocks and heads: width=", shape.d_model,
                                ", ff_width=", shape.d_ff, ", heads=", shape.n_heads));
  }
  return shape;
}

int64_t TableBytes(absl::Span<const absl::string_view> words) {
  int64_t bytes = 0;
  // A word's text, its entry, and its slots in hash tables at low load: a generous bound.
  for (const absl::string_view word : words) bytes += 160 + 2 * static_cast<int64_t>(word.size());
  return bytes;
}

}  // namespace

// Takes tensors out of a file by name, with the shapes they must have.
class Encoder::WeightReader {
 public:
  explicit WeightReader(const GgufFile& file) : file_(file) {}

  absl::StatusOr<MatrixView> Matrix(const std::string& name, int64_t n_rows, int64_t n_cols) {
    COTERIE_ASSIGN_OR_RETURN(const TensorRef tensor, Shaped(name, {n_rows, n_cols}));
    if (tensor.type != TensorType::kQ8_0) {
      return Damaged(file_, absl::StrCat("a matrix is not Q8_0: tensor=", name,
                                         ", type=", Traits(tensor.type).name));
    }
    return tensor.matrix();
  }

  absl::StatusOr<std::vector<float>> Floats(const std::string& name, std::vector<int64_t> shape) {
    COTERIE_ASSIGN_OR_RETURN(const TensorRef tensor, Shaped(name, std::move(shape)));
    if (tensor.type != TensorType::kF32) {
      return Damaged(file_, absl::StrCat("a tensor is not F32: tensor=", name,
                                         ", type=", Traits(tensor.type).name));
    }
    std::vector<float> values(tensor.bytes.size() / sizeof(float));
    std::memcpy(values.data(), tensor.bytes.data(), tensor.bytes.size());
    if (!std::all_of(values.begin(), values.end(), [](float v) { return std::isfinite(v); })) {
      return Damaged(file_, absl::StrCat("a value is not finite: tensor=", name));
    }
    return values;
  }

  absl::StatusOr<Linear> ReadLinear(const std::string& name, int64_t n_out, int64_t n_in) {
    Linear linear;
    COTERIE_ASSIGN_OR_RETURN(linear.weight, Matrix(name + ".weight", n_out, n_in));
    COTERIE_ASSIGN_OR_RETURN(linear.bias, Floats(name + ".bias", {n_out}));
    return linear;
  }

  absl::StatusOr<Norm> ReadNorm(const std::string& name, int64_t n) {
    Norm norm;
    COTERIE_ASSIGN_OR_RETURN(norm.weight, Floats(name + ".weight", {n}));
    COTERIE_ASSIGN_OR_RETURN(norm.bias, Floats(name + ".bias", {n}));
    return norm;
  }

  absl::StatusOr<Layer> ReadLayer(int64_t index, const EncoderShape& shape) {
    const std::string prefix = absl::StrCat("blk.", index, ".");
    const int64_t d = shape.d_model;
    Layer layer;
    COTERIE_ASSIGN_OR_RETURN(layer.qkv, ReadLinear(prefix + "attn_qkv", 3 * d, d));
    COTERIE_ASSIGN_OR_RETURN(layer.attention_out, ReadLinear(prefix + "attn_output", d, d));
    COTERIE_ASSIGN_OR_RETURN(layer.attention_norm, ReadNorm(prefix + "attn_output_norm", d));
    COTERIE_ASSIGN_OR_RETURN(layer.up, ReadLinear(prefix + "ffn_up", shape.d_ff, d));
    COTERIE_ASSIGN_OR_RETURN(layer.down, ReadLinear(prefix + "ffn_down", d, shape.d_ff));
    COTERIE_ASSIGN_OR_RETURN(layer.out_norm, ReadNorm(prefix + "layer_output_norm", d));
    return layer;
  }

 private:
  absl::StatusOr<TensorRef> Shaped(const std::string& name, std::vector<int64_t> shape) {
    COTERIE_ASSIGN_OR_RETURN(TensorRef tensor, file_.Find(name));
    if (tensor.shape != shape) {
      return Damaged(file_, absl::StrCat("a tensor has the wrong shape: tensor=", name, ", shape=[",
                                         absl::StrJoin(tensor.shape, ", "), "], expected=[",
                                         absl::StrJoin(shape, ", "), "]"));
    }
    return tensor;
  }

  const GgufFile& file_;
};

Encoder::Encoder(std::unique_ptr<const GgufFile> file, int64_t n_domains, WorkerPool* pool)
    : file_(std::move(file)), n_domains_(n_domains), pool_(pool), kernels_(Kernels()) {}

absl::StatusOr<std::unique_ptr<const Encoder>> Encoder::Open(std::unique_ptr<const GgufFile> file,
                                                             int64_t n_domains, WorkerPool* pool) {
  std::unique_ptr<Encoder> encoder(new Encoder(std::move(file), n_domains, pool));
  const GgufFile& in = *encoder->file_;
  COTERIE_ASSIGN_OR_RETURN(encoder->shape_, ReadShape(in));
  const EncoderShape& shape = encoder->shape_;

  COTERIE_ASSIGN_OR_RETURN(const auto words, in.GetStringArray(kVocabularyKey));
  const std::vector<std::string> lines(words.begin(), words.end());
  TokenizerVocabulary vocabulary = WordPieceVocabulary(lines);
  vocabulary.origin = in.path();
  COTERIE_ASSIGN_OR_RETURN(encoder->tokenizer_, Tokenizer::FromVocabulary(vocabulary));
  const auto cls = encoder->tokenizer_->Find("[CLS]"), sep = encoder->tokenizer_->Find("[SEP]");
  if (!cls || !sep) return Damaged(in, "the vocabulary has no [CLS] or no [SEP]");
  encoder->cls_ = *cls;
  encoder->sep_ = *sep;

  WeightReader reader(in);
  const auto n_words = static_cast<int64_t>(lines.size());
  COTERIE_ASSIGN_OR_RETURN(encoder->words_,
                           reader.Matrix("token_embd.weight", n_words, shape.d_model));
  COTERIE_ASSIGN_OR_RETURN(encoder->positions_, reader.Floats("position_embd.weight",
                                                              {shape.max_tokens, shape.d_model}));
  COTERIE_ASSIGN_OR_RETURN(encoder->norm_, reader.ReadNorm("token_embd_norm", shape.d_model));
  for (int64_t i = 0; i < shape.n_layers; ++i) {
    COTERIE_ASSIGN_OR_RETURN(Layer layer, reader.ReadLayer(i, shape));
    encoder->layers_.push_back(std::move(layer));
  }
  COTERIE_ASSIGN_OR_RETURN(encoder->head_, reader.Floats("cls.weight", {n_domains, shape.d_model}));
  COTERIE_ASSIGN_OR_RETURN(encoder->head_bias_, reader.Floats("cls.bias", {n_domains}));

  encoder->scratch_bytes_ = Scratch::Bytes(shape, pool == nullptr ? 1 : pool->n_workers());
  {
    MutexLock lock(encoder->mutex_);
    encoder->scratch_ = AlignedBuffer(encoder->scratch_bytes_);
  }
  return encoder;
}

absl::StatusOr<int64_t> Encoder::EstimateBytes(const GgufFile& file, int64_t n_workers) {
  COTERIE_ASSIGN_OR_RETURN(const EncoderShape shape, ReadShape(file));
  COTERIE_ASSIGN_OR_RETURN(const auto words, file.GetStringArray(kVocabularyKey));
  // Norms, biases, positions and head are copied out: less than the file's own F32 tensors.
  int64_t floats = 0;
  for (const absl::string_view name : file.TensorNames()) {
    COTERIE_ASSIGN_OR_RETURN(const TensorRef tensor, file.Find(name));
    if (tensor.type == TensorType::kF32) floats += static_cast<int64_t>(tensor.bytes.size());
  }
  return file.size() + floats + TableBytes(words) + Scratch::Bytes(shape, n_workers);
}

int64_t Encoder::memory_bytes() const {
  int64_t floats = static_cast<int64_t>(positions_.size() + head_.size() + head_bias_.size());
  for (const Layer& layer : layers_) {
    for (const Linear* linear : {&layer.qkv, &layer.attention_out, &layer.up, &layer.down}) {
      floats += static_cast<int64_t>(linear->bias.size());
    }
    floats += 4 * shape_.d_model;
  }
  return file_->size() + floats * static_cast<int64_t>(sizeof(float)) + tokenizer_->memory_bytes() +
         scratch_bytes_;
}

void Encoder::AppendTo(GgufWriter& file) const {
  file.SetInt("router.encoder.layers", shape_.n_layers);
  file.SetInt("router.encoder.heads", shape_.n_heads);
  file.SetInt("router.encoder.width", shape_.d_model);
  file.SetInt("router.encoder.ff_width", shape_.d_ff);
  file.SetInt("router.encoder.max_tokens", shape_.max_tokens);
  file.SetInt("router.encoder.tail_tokens", shape_.tail_tokens);
  file.SetFloat("router.encoder.epsilon", shape_.epsilon);
  for (const absl::string_view key : kKept) {
    const absl::StatusOr<absl::string_view> value = file_->GetString(key);
    if (value.ok()) file.SetString(key, *value);
  }
  const auto words = file_->GetStringArray(kVocabularyKey);
  file.SetStringArray(kVocabularyKey, std::vector<std::string>(words->begin(), words->end()));
  for (const absl::string_view name : file_->TensorNames()) {
    const absl::StatusOr<TensorRef> tensor = file_->Find(name);
    file.AddTensor(name, tensor->type, tensor->shape, tensor->bytes);
  }
}

}  // namespace coterie
