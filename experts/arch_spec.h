#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

#include "core/formats/gguf_file.h"
#include "core/kernels/kernels.h"

namespace coterie {

// Which values of a head RoPE rotates together: (2i, 2i + 1), as in llama's GGUF files, whose q and
// k rows the converter permuted, or (i, i + n/2), as everywhere else.
enum class RopeKind : uint8_t { kAdjacent, kHalves };

// By which angle pair i of a head turns at a position:
//   position * position_scale * base^(-2i / rope_dims) / divisors[i]
struct RopeAngles {
  float base = 10000;
  float position_scale = 1;     // Linear scaling: 1 / factor.
  std::vector<float> divisors;  // [rope_dims / 2], or empty: all 1.

  // Cosines and sines for n positions from first_position on, [n, rope_dims / 2] each.
  void Rotations(int64_t first_position, int64_t n, int64_t rope_dims, float* cos,
                 float* sin) const;
};

// What the gate of a feed-forward layer goes through: x * sigmoid(x), or GELU by tanh.
enum class Gating : uint8_t { kSilu, kGeluTanh };

// What a decoder looks like: plain data read from its files. One description for all architectures;
// the passes over it are in experts/decoder.h.
struct ArchSpec {
  std::string architecture;  // "llama", "qwen2", "gemma3"
  int64_t n_layers = 0;
  int64_t d_model = 0;
  int64_t n_heads = 0;
  int64_t n_kv_heads = 0;  // Divides n_heads.
  int64_t head_dim = 0;    // Even.
  int64_t d_ff = 0;
  int64_t n_vocab = 0;
  int64_t context_tokens = 0;  // The longest sequence the model was trained for.

  float embedding_scale = 1;  // Multiplies the embedded tokens.
  float norm_epsilon = 0;
  float norm_offset = 0;  // Added to stored norm weights: 1 for gemma as Hugging Face stores it.
  float query_scale = 1;  // Multiplies q . k.
  Gating gating = Gating::kSilu;
  bool qkv_bias = false;    // q, k and v must have biases; without, they may.
  bool qk_norm = false;     // q and k of each head are normed before they are rotated.
  bool post_norms = false;  // What attention and feed-forward add to the stream is normed first.

  RopeKind rope = RopeKind::kHalves;
  int64_t rope_dims = 0;  // Leading values of a head that are rotated; even.
  RopeAngles rope_angles;

  // Layers that see only the last `window` tokens, the token itself included, with angles of their
  // own. [n_layers], or empty: all layers see everything.
  std::vector<bool> windowed;
  int64_t window = 0;
  RopeAngles window_rope_angles;

  int64_t d_q() const { return n_heads * head_dim; }
  int64_t d_kv() const { return n_kv_heads * head_dim; }
  bool IsWindowed(int64_t layer) const {
    return !windowed.empty() && windowed[static_cast<size_t>(layer)];
  }
  // Bytes of f16 keys and values for n_tokens.
  int64_t KvBytes(int64_t n_tokens) const {
    return 2 * 2 * n_layers * d_kv() * WholeKeyTiles(n_tokens);
  }

  // Reads and checks the description that a GGUF file carries. kUnimplemented for an architecture
  // or a RoPE scaling that has no implementation here, kDataLoss for values that contradict each
  // other; both name the file.
  static absl::StatusOr<ArchSpec> FromGguf(const GgufFile& file);

  // The same from the text of a Hugging Face folder's config.json; `path` stands in messages.
  // n_vocab, which only the embedding knows for certain, is what the configuration says.
  static absl::StatusOr<ArchSpec> FromHuggingFace(absl::string_view config_json,
                                                  absl::string_view path);

  // For readers: what an architecture's name implies, kUnimplemented for an unknown one.
  static absl::StatusOr<ArchSpec> ForArchitecture(absl::string_view name, absl::string_view path);
  // For readers, which name the key of a value outside [1, max]. The bounds are far above any model
  // meant for one machine and keep products of extents within int64.
  static constexpr int64_t kMaxLayers = 1024;
  static constexpr int64_t kMaxExtent = 1 << 20;
  static constexpr int64_t kMaxHeads = 4096;
  static constexpr int64_t kMaxHeadDim = 4096;
  static constexpr int64_t kMaxContextTokens = 1 << 24;
  // A base, factor or epsilon that is neither zero nor infinite as a float, nor is its inverse.
  static constexpr bool IsSoundFactor(double value) { return value >= 1e-30 && value <= 1e30; }
  // For readers, at the end: whether all fields have values that go together.
  absl::Status CheckConsistency(absl::string_view path) const;
};

}  // namespace coterie
