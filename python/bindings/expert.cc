// coterie.Expert: one model file opened outside any cache, for scripts, tests and parity.

#include "experts/expert.h"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "pybind11/stl.h"

#include "core/formats/safetensors_folder.h"
#include "core/threads/worker_pool.h"
#include "experts/generation.h"
#include "experts/model_files.h"
#include "experts/session.h"
#include "python/bindings/bindings.h"
#include "python/bindings/gil.h"
#include "python/bindings/native_thread.h"
#include "python/bindings/python_expert.h"

namespace py = pybind11;

namespace coterie {
namespace {

// Rows of logits computed at once: bounds the scratch for large vocabularies.
constexpr int64_t kLogitChunkTokens = 32;
constexpr int kMaxThreads = 1024;  // As in coterie.toml.

class PythonTokenizer {
 public:
  explicit PythonTokenizer(std::shared_ptr<const Expert> expert) : expert_(std::move(expert)) {}

  std::vector<TokenId> Encode(const std::string& text, bool add_special, bool parse_special) const {
    return ValueOrRaise(expert_->tokenizer().Encode(text, add_special, parse_special));
  }

  py::str Decode(const std::vector<TokenId>& ids) const {
    for (const TokenId id : ids) {
      if (id < 0 || id >= expert_->tokenizer().n_vocab()) {
        throw py::value_error("token id is outside the vocabulary: " + std::to_string(id));
      }
    }
    return TextFrom(expert_->tokenizer().Decode(ids));
  }

  int64_t n_vocab() const { return expert_->tokenizer().n_vocab(); }

 private:
  std::shared_ptr<const Expert> expert_;
};

Activations ActivationsFrom(const std::string& name) {
  if (name == "int8") return Activations::kInt8;
  if (name == "f32") return Activations::kF32;
  throw py::value_error("activations are 'int8' or 'f32', not '" + name + "'");
}

DeltaSnapshot DeltasOf(const std::optional<std::shared_ptr<PythonAdapter>>& adapter) {
  return adapter ? (*adapter)->deltas : nullptr;
}

}  // namespace

std::shared_ptr<PythonExpert> PythonExpert::Open(const std::string& path,
                                                 const std::string& activations, int threads) {
  const Activations precision = ActivationsFrom(activations);
  if (threads < 0 || threads > kMaxThreads) {
    throw py::value_error("threads are between 0 (one per core) and " +
                          std::to_string(kMaxThreads) + ", not " + std::to_string(threads));
  }
  auto expert = CallInterruptibly([path](std::stop_token) { return Expert::Open(path); });
  return OwnedByPython(std::unique_ptr<PythonExpert>(
      new PythonExpert(ValueOrRaise(std::move(expert)), precision, threads)));
}

py::array_t<float> PythonExpert::Logits(std::shared_ptr<PythonExpert> self,
                                        std::vector<TokenId> ids,
                                        std::optional<std::shared_ptr<PythonAdapter>> adapter) {
  const int64_t n_tokens = static_cast<int64_t>(ids.size());
  const int64_t n_vocab = self->expert_->spec().n_vocab;
  auto computed = CallInterruptibly([self = std::move(self), ids = std::move(ids),
                                     deltas = DeltasOf(adapter)](const std::stop_token& stop) {
    return self->ComputeLogits(ids, deltas, stop);
  });
  auto* values = new std::vector<float>(ValueOrRaise(std::move(computed)));
  const py::capsule owner(values, [](void* v) { delete static_cast<std::vector<float>*>(v); });
  return py::array_t<float>({n_tokens, n_vocab}, values->data(), owner);
}

Fields PythonExpert::Generate(std::shared_ptr<PythonExpert> self, const py::object& prompt,
                              int64_t max_tokens, const SamplingOptions& sampling,
                              const std::vector<std::string>& stop,
                              std::optional<std::shared_ptr<PythonAdapter>> adapter, bool lookup) {
  GenerationOptions options;
  options.sampling = sampling;
  options.max_tokens = max_tokens;
  options.stop = stop;
  options.lookup = lookup;
  const Generation done =
      ValueOrRaise(CallInterruptibly([self = std::move(self), messages = MessagesFrom(prompt),
                                      options, deltas = DeltasOf(adapter)](std::stop_token cancel) {
        return self->Answer(messages, options, deltas, cancel);
      }));
  Fields result;
  result["text"] = TextFrom(done.text);
  result["finish_reason"] = std::string(FinishReasonName(done.finish_reason));
  result["prompt_tokens"] = done.n_prompt_tokens;
  result["completion_tokens"] = done.n_tokens;
  result["lookup_tokens"] = done.n_lookup_tokens;
  result["prefill_ms"] = absl::ToDoubleMilliseconds(done.prefill_time);
  result["first_token_ms"] = absl::ToDoubleMilliseconds(done.first_token_time);
  result["decode_tokens_per_second"] = done.decode_tokens_per_second();
  return result;
}

Fields PythonExpert::Description() const {
  const ArchSpec& spec = expert_->spec();
  Fields d;
  d["architecture"] = spec.architecture;
  d["n_layers"] = spec.n_layers;
  d["d_model"] = spec.d_model;
  d["n_heads"] = spec.n_heads;
  d["n_kv_heads"] = spec.n_kv_heads;
  d["head_dim"] = spec.head_dim;
  d["d_ff"] = spec.d_ff;
  d["n_vocab"] = spec.n_vocab;
  d["context_tokens"] = spec.context_tokens;
  d["weight_bytes"] = expert_->weight_bytes();
  d["has_chat_template"] = expert_->chat_template() != nullptr;
  return d;
}

absl::StatusOr<std::vector<float>> PythonExpert::ComputeLogits(const std::vector<TokenId>& ids,
                                                               const DeltaSnapshot& adapter,
                                                               const std::stop_token& stop) {
  const ArchSpec& spec = expert_->spec();
  const int64_t n_tokens = static_cast<int64_t>(ids.size());
  std::vector<float> logits(ids.size() * static_cast<size_t>(spec.n_vocab));
  KvCache kv(spec, n_tokens);
  DecoderScratch scratch(spec, kLogitChunkTokens, kLogitChunkTokens, pool_.n_workers(),
                         adapter == nullptr ? 0 : adapter->max_rank());
  for (int64_t begin = 0; begin < n_tokens; begin += kLogitChunkTokens) {
    const int64_t n = std::min(kLogitChunkTokens, n_tokens - begin);
    const SequenceSlice slice{
        &kv, {ids.data() + begin, static_cast<size_t>(n)}, LogitRows::kAll, adapter.get()};
    const absl::Status status = expert_->Forward({&slice, 1}, activations_, pool_, scratch, stop);
    if (!status.ok()) return status;
    std::memcpy(logits.data() + begin * spec.n_vocab, scratch.logits().data(),
                scratch.logits().size() * sizeof(float));
  }
  return logits;
}

absl::StatusOr<Generation> PythonExpert::Answer(const std::vector<Message>& messages,
                                                const GenerationOptions& options,
                                                const DeltaSnapshot& adapter,
                                                std::stop_token cancel) {
  absl::StatusOr<Encoding> prompt = EncodeConversation(*expert_, messages);
  if (!prompt.ok()) return prompt.status();
  const int64_t n_prompt = static_cast<int64_t>(prompt->ids.size());
  const int64_t n_tokens =
      std::min(expert_->spec().context_tokens, n_prompt + std::max<int64_t>(options.max_tokens, 0));
  Session session(*expert_, pool_,
                  SessionShape::ForTokens(std::max(n_tokens, n_prompt), adapter.get()),
                  activations_, adapter);
  return coterie::Generate(
      session, prompt->ids, options, [](absl::string_view) { return true; }, cancel);
}

namespace {

// Lists tensors as (name, type, shape), and how many there are of each type.
class TensorList {
 public:
  void Add(absl::string_view name, absl::string_view type, const std::vector<int64_t>& shape) {
    ++by_type_[std::string(type)];
    tensors_.append(py::make_tuple(std::string(name), std::string(type), shape));
  }
  void AddTo(Fields& fields) const {
    fields["tensors"] = tensors_;
    fields["tensors_by_type"] = by_type_;
  }

 private:
  std::map<std::string, int> by_type_;
  py::list tensors_;
};

// A Hugging Face folder, whose configuration takes the place of keys.
Fields InspectFolder(const ModelFiles& files) {
  const ArchSpec spec = ValueOrRaise(files.ReadSpec());
  const auto folder = ValueOrRaise(SafetensorsFolder::Open(files.path()));
  Fields d;
  d["path"] = files.path();
  int64_t n_bytes = 0;
  for (const MappedFile* mapping : files.mappings()) n_bytes += mapping->size();
  d["bytes"] = n_bytes;
  d["tensor_bytes"] = files.tensor_bytes();
  py::dict keys;
  const std::pair<const char*, int64_t> dimensions[] = {
      {"layers", spec.n_layers},    {"d_model", spec.d_model},        {"d_ff", spec.d_ff},
      {"heads", spec.n_heads},      {"KV heads", spec.n_kv_heads},    {"head_dim", spec.head_dim},
      {"vocabulary", spec.n_vocab}, {"context", spec.context_tokens}, {"window", spec.window}};
  for (const auto& [name, value] : dimensions) keys[name] = std::to_string(value);
  d["keys"] = keys;
  TensorList tensors;
  for (const absl::string_view name : folder->TensorNames()) {
    const SafetensorsTensor tensor = ValueOrRaise(folder->Find(name));
    tensors.Add(name, SafetensorsTypeName(tensor.type), tensor.shape);
  }
  tensors.AddTo(d);
  d["chat_template"] = TextFrom(ValueOrRaise(files.ReadChatTemplate()));
  d["architecture"] = spec.architecture;
  return d;
}

Fields InspectGguf(const GgufFile& file) {
  Fields d;
  d["path"] = file.path();
  d["bytes"] = file.size();
  d["tensor_bytes"] = file.tensor_bytes();
  py::dict keys;
  for (const absl::string_view key : file.Keys()) {
    keys[py::str(key.data(), key.size())] = TextFrom(file.Describe(key));
  }
  d["keys"] = keys;
  TensorList tensors;
  for (const absl::string_view name : file.TensorNames()) {
    const TensorRef tensor = ValueOrRaise(file.Find(name));
    tensors.Add(name, Traits(tensor.type).name, tensor.shape);
  }
  tensors.AddTo(d);
  const auto chat_template = file.GetString("tokenizer.chat_template", "");
  d["chat_template"] = TextFrom(std::string(chat_template.ok() ? *chat_template : ""));
  const auto architecture = file.GetString("general.architecture", "");
  d["architecture"] = TextFrom(std::string(architecture.ok() ? *architecture : ""));
  return d;
}

Fields Inspect(const std::string& path) {
  std::error_code error;
  if (std::filesystem::is_directory(path, error)) {
    return InspectFolder(*ValueOrRaise(ModelFiles::Open(path)));
  }
  absl::StatusOr<std::unique_ptr<const GgufFile>> opened;
  {
    GilReleased released;
    opened = GgufFile::Open(path);
  }
  return InspectGguf(*ValueOrRaise(std::move(opened)));
}

}  // namespace

void BindSampling(py::module_& module) {
  py::class_<SamplingOptions>(module, "SamplingOptions", "How the next token is chosen.")
      .def(py::init<>(), "The defaults: temperature 0.7, top_k 40, top_p 0.95, min_p 0.05.")
      .def_readwrite("temperature", &SamplingOptions::temperature, "0: always the likeliest token.")
      .def_readwrite("top_k", &SamplingOptions::top_k, "Of the k likeliest; 0: of all.")
      .def_readwrite("top_p", &SamplingOptions::top_p,
                     "Of the likeliest that reach this probability together, in (0, 1].")
      .def_readwrite("min_p", &SamplingOptions::min_p,
                     "Of those at least so likely relative to the likeliest, in [0, 1].")
      .def_readwrite("repetition_penalty", &SamplingOptions::repetition_penalty,
                     "Divides the logits of recent tokens; 1: none.")
      .def_readwrite("seed", &SamplingOptions::seed, "None: another each time.")
      .def_readwrite("n_logprobs", &SamplingOptions::n_logprobs,
                     "How many alternatives to report for each token; -1: nothing.");
}

void BindExpert(py::module_& module) {
  module.def("inspect", &Inspect, py::arg("path"),
             "Describes a GGUF file or a Hugging Face folder: keys, tensors, template, sizes in "
             "bytes. Reads the headers.");
  py::class_<PythonTokenizer>(module, "Tokenizer", "Text to token ids and back.")
      .def("encode", &PythonTokenizer::Encode, py::arg("text"), py::kw_only(),
           py::arg("add_special") = true, py::arg("parse_special") = true,
           "Token ids of a text. With parse_special, text such as '<|im_end|>' becomes the special "
           "token of that name; add_special adds what the model expects at the beginning. Raises "
           "ValueError for text that is no Unicode.")
      .def("decode", &PythonTokenizer::Decode, py::arg("ids"),
           "Text of token ids; bytes that are no UTF-8 become U+FFFD. Raises ValueError for an id "
           "outside [0, n_vocab).")
      .def_property_readonly("n_vocab", &PythonTokenizer::n_vocab, "Number of tokens.");

  BindSampling(module);
  // Declared by BindAdapter, whose signatures name it.
  py::class_<PythonExpert, std::shared_ptr<PythonExpert>>(module.attr("Expert"))
      .def_static("open", &PythonExpert::Open, py::arg("path"), py::kw_only(),
                  py::arg("activations") = "int8", py::arg("threads") = 0,
                  "Opens a GGUF file.\n\nactivations: 'int8' rounds activations to 8 bits per "
                  "block of 32 (fast), 'f32' does not (the reference). threads: 0 means one per "
                  "core.")
      .def_property_readonly(
          "tokenizer", [](const PythonExpert& expert) { return PythonTokenizer(expert.expert()); },
          "The file's tokenizer.")
      .def("logits", &PythonExpert::Logits, py::arg("ids"), py::arg("adapter") = py::none(),
           "Logits after each token of one sequence, float32 [n_tokens, n_vocab].")
      .def("generate", &PythonExpert::Generate, py::arg("prompt_or_messages"),
           py::arg("max_tokens"), py::arg("sampling"), py::arg("stop"),
           py::arg("adapter") = py::none(), py::arg("lookup") = true,
           "Answers; the fields of coterie.expert.ExpertReply.")
      .def_property_readonly("description", &PythonExpert::Description,
                             "What the file says of its model: dimensions, vocabulary, context.");
}

}  // namespace coterie
