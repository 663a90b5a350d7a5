"""Writes a Q4_0 file of Llama-3.2-1B's shape with random weights: the type llama.cpp is best at.

The tokenizer is that of a file at hand, filled up to Llama's vocabulary. Speed does not depend on
what weights say.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np

LAYERS, WIDTH, FEED_FORWARD, HEADS, KV_HEADS, HEAD, VOCABULARY = 16, 2048, 8192, 32, 8, 64, 128_256


def write(path: Path, tokenizer_from: Path) -> None:
    random = np.random.default_rng(1)
    writer = gguf.GGUFWriter(path, "llama")
    add_shape(writer)
    add_tokenizer(writer, gguf.GGUFReader(tokenizer_from))

    def add(name: str, rows: int, columns: int, quantization: Any = gguf.GGMLQuantizationType.Q4_0):
        blocks = random_blocks(random, rows, columns, quantization)
        writer.add_tensor(name, blocks, raw_dtype=quantization)

    add("token_embd.weight", VOCABULARY, WIDTH, gguf.GGMLQuantizationType.Q6_K)
    writer.add_tensor("output_norm.weight", np.ones(WIDTH, np.float32))
    for layer in range(LAYERS):
        prefix = f"blk.{layer}."
        for name in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"{prefix}{name}.weight", np.ones(WIDTH, np.float32))
        add(f"{prefix}attn_q.weight", HEADS * HEAD, WIDTH)
        add(f"{prefix}attn_k.weight", KV_HEADS * HEAD, WIDTH)
        add(f"{prefix}attn_v.weight", KV_HEADS * HEAD, WIDTH)
        add(f"{prefix}attn_output.weight", WIDTH, HEADS * HEAD)
        add(f"{prefix}ffn_gate.weight", FEED_FORWARD, WIDTH)
        add(f"{prefix}ffn_up.weight", FEED_FORWARD, WIDTH)
        add(f"{prefix}ffn_down.weight", WIDTH, FEED_FORWARD)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def add_shape(writer: gguf.GGUFWriter) -> None:
    writer.add_context_length(8192)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_dimension_count(HEAD)
    writer.add_rope_freq_base(500_000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(VOCABULARY)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q4_0)


def add_tokenizer(writer: gguf.GGUFWriter, source: gguf.GGUFReader) -> None:
    def of(key: str) -> Any:
        return source.fields[f"tokenizer.ggml.{key}"].contents()

    tokens, types = list(of("tokens")), list(of("token_type"))
    missing = VOCABULARY - len(tokens)
    tokens += [f"<unused_{i}>" for i in range(missing)]
    types += [gguf.TokenType.UNUSED] * missing
    writer.add_tokenizer_model(of("model"))
    writer.add_tokenizer_pre(of("pre"))
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(list(of("merges")))
    writer.add_eos_token_id(of("eos_token_id"))


def random_blocks(
    random: np.random.Generator, rows: int, columns: int, quantization: Any
) -> np.ndarray:
    """Random bytes with scales that keep activations as large as they come."""
    values, size = gguf.GGML_QUANT_SIZES[quantization]
    blocks = random.integers(0, 256, (rows, columns // values, size), dtype=np.uint8)
    spread = {gguf.GGMLQuantizationType.Q4_0: 4.6, gguf.GGMLQuantizationType.Q6_K: 18.5 * 64}
    scale = np.float16(columns**-0.5 / spread[quantization])
    at = 208 if quantization == gguf.GGMLQuantizationType.Q6_K else 0
    blocks[:, :, at : at + 2] = np.frombuffer(scale.tobytes(), np.uint8)
    return blocks.reshape(rows, -1)
