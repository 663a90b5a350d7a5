#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

#include "core/formats/gguf_file.h"

namespace coterie {

// Which values of a head RoPE rotates together: (2i, 2i + 1), as in llama files, whose q and k rows
// the converter permuted, or (i, i + n/2), as in qwen2.
enum class RopeKind : uint8_t { kAdjacent, kHalves };

// What a decoder looks like: plain data read from its file. One description per architecture; the
// passes over it are in experts/decoder.h.
struct ArchSpec {
  std::string architecture;  // "llama", "qwen2"
  int64_t n_layers = 0;
  int64_t d_model = 0;
  int64_t n_heads = 0;
  int64_t n_kv_heads = 0;  // Divides n_heads.
  int64_t head_dim = 0;    // Even.
  int64_t d_ff = 0;
  int64_t n_vocab = 0;
  int64_t context_tokens = 0;  // The longest sequence the model was trained for.
  float norm_epsilon = 0;
  RopeKind rope = RopeKind::kHalves;
  int64_t rope_dims = 0;  // Leading values of a head that are rotated; even.
  float rope_base = 10000;
  float rope_position_scale = 1;  // Positions are multiplied by this (linear scaling: 1 / factor).

  int64_t d_q() const { return n_heads * head_dim; }
  int64_t d_kv() const { return n_kv_heads * head_dim; }
  // Bytes of f16 keys and values for n_tokens.
  int64_t KvBytes(int64_t n_tokens) const { return 2 * 2 * n_layers * d_kv() * n_tokens; }

  // Reads and checks the description. kUnimplemented for an architecture or a RoPE scaling that has
  // no implementation here, kDataLoss for values that contradict each other; both name the file.
  static absl::StatusOr<ArchSpec> FromGguf(const GgufFile& file);
};

}  // namespace coterie
