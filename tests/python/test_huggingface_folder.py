"""A Hugging Face folder gives what the GGUF file of the same weights gives; a split file, too."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy
import pytest

coterie = pytest.importorskip("coterie")
gguf = pytest.importorskip("gguf")
pytestmark = pytest.mark.model

MODEL = "smollm2-135m"
N_LAYERS = 3  # Of thirty: enough to notice a mistake, and few bytes.
TEXTS = ("The capital of France is", "def f(n):\n    return n + 12\n", "Größe ½ 你好 <|im_end|>")

# Of a tensor inside a layer.
NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


@pytest.fixture(scope="module")
def whole() -> Any:
    from coterie.store import Store

    store = Store()
    record = store.find(MODEL)
    if record is None:
        pytest.fail(f"{MODEL} is not in the store: coterie pull {MODEL}")
    return gguf.GGUFReader(store.path_of(record))


def is_kept(name: str) -> bool:
    return not name.startswith("blk.") or int(name.split(".")[1]) < N_LAYERS


def write_gguf(whole: Any, path: Path, parts: int = 1) -> Path:
    """The first layers of the model, with all keys, perhaps in parts; what to open."""
    kept = [tensor for tensor in whole.tensors if is_kept(tensor.name)]
    size = -(-len(kept) // parts) if parts > 1 else 0
    writer = gguf.GGUFWriter(path, "llama", split_max_tensors=size)
    for field in whole.fields.values():
        if field.name.startswith("GGUF.") or field.name == "general.architecture":
            continue
        value = N_LAYERS if field.name == "llama.block_count" else field.contents()
        inner = field.types[1] if len(field.types) > 1 else None
        writer.add_key_value(field.name, value, field.types[0], sub_type=inner)
    for tensor in kept:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path.with_name(f"{path.stem}-00001-of-{parts:05}.gguf") if parts > 1 else path


def hugging_face_tensor(tensor: Any, head_dim: int) -> tuple[str, Any]:
    values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
    values = values.reshape([int(n) for n in reversed(tensor.shape)])
    if not tensor.name.startswith("blk."):
        return {
            "token_embd.weight": "model.embed_tokens.weight",
            "output_norm.weight": "model.norm.weight",
            "output.weight": "lm_head.weight",
        }[tensor.name], values
    _, layer, kind, ending = tensor.name.split(".")
    if kind in ("attn_q", "attn_k"):  # GGUF rotates neighbours, Hugging Face halves.
        n_rows, n_cols = values.shape
        values = values.reshape(n_rows // head_dim, head_dim // 2, 2, n_cols)
        values = values.swapaxes(1, 2).reshape(n_rows, n_cols)
    return f"model.layers.{layer}.{NAMES[kind]}.{ending}", values


def write_safetensors(path: Path, tensors: dict[str, Any]) -> None:
    header: dict[str, Any] = {}
    offset = 0
    for name, values in tensors.items():
        header[name] = {
            "dtype": "F32",
            "shape": list(values.shape),
            "data_offsets": [offset, offset + values.nbytes],
        }
        offset += values.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for values in tensors.values():
            file.write(numpy.ascontiguousarray(values, numpy.float32).tobytes())


def write_tokenizer(whole: Any, folder: Path) -> None:
    tokens = whole.fields["tokenizer.ggml.tokens"].contents()
    kinds = whole.fields["tokenizer.ggml.token_type"].contents()
    added = [
        {"id": i, "content": token, "special": True, "normalized": False, "single_word": False,
         "lstrip": False, "rstrip": False}
        for i, (token, kind) in enumerate(zip(tokens, kinds, strict=True)) if kind == 3
    ]  # fmt: skip
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    digits = {"type": "Digits", "individual_digits": True}
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [digits, {**level, "use_regex": True}],
        },
        "post_processor": None,
        "decoder": {**level, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {token: i for i, token in enumerate(tokens)},
            "merges": whole.fields["tokenizer.ggml.merges"].contents(),
        },
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    template = whole.fields["tokenizer.chat_template"].contents()
    config = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "chat_template": template}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def write_folder(whole: Any, folder: Path) -> Path:
    def number(key: str) -> Any:
        return whole.fields[f"llama.{key}"].contents()

    folder.mkdir()
    n_heads, d_model = number("attention.head_count"), number("embedding_length")
    kept = [tensor for tensor in whole.tensors if is_kept(tensor.name)]
    tensors = dict(hugging_face_tensor(tensor, d_model // n_heads) for tensor in kept)
    config = {
        "model_type": "llama",
        "num_hidden_layers": N_LAYERS,
        "hidden_size": d_model,
        "intermediate_size": number("feed_forward_length"),
        "num_attention_heads": n_heads,
        "num_key_value_heads": number("attention.head_count_kv"),
        "max_position_embeddings": number("context_length"),
        "vocab_size": tensors["model.embed_tokens.weight"].shape[0],
        "rms_norm_eps": number("attention.layer_norm_rms_epsilon"),
        "rope_theta": number("rope.freq_base"),
        "tie_word_embeddings": "lm_head.weight" not in tensors,
    }
    (folder / "config.json").write_text(json.dumps(config))
    write_safetensors(folder / "model.safetensors", tensors)
    write_tokenizer(whole, folder)
    return folder


@pytest.fixture(scope="module")
def reference(whole: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = write_gguf(whole, tmp_path_factory.mktemp("gguf") / "cut.gguf")
    return coterie.Expert.open(path, activations="f32")


def test_a_folder_gives_the_ids_logits_and_answers_of_the_gguf_file(
    whole: Any, reference: Any, tmp_path: Path
) -> None:
    expert = coterie.Expert.open(write_folder(whole, tmp_path / "hf"), activations="f32")
    for text in TEXTS:
        ids = reference.tokenizer.encode(text)
        assert expert.tokenizer.encode(text) == ids
        numpy.testing.assert_allclose(expert.logits(ids), reference.logits(ids), atol=2e-3)
    prompt = "Name a colour."
    answer = expert.generate(prompt, max_tokens=8)
    assert answer.text == reference.generate(prompt, max_tokens=8).text


def test_a_file_split_by_the_gguf_package_gives_the_same_bits(
    whole: Any, reference: Any, tmp_path: Path
) -> None:
    first = write_gguf(whole, tmp_path / "m.gguf", parts=4)
    assert len(list(tmp_path.glob("m-*-of-00004.gguf"))) == 4
    expert = coterie.Expert.open(first, activations="f32")
    ids = reference.tokenizer.encode(TEXTS[0])
    assert numpy.array_equal(expert.logits(ids), reference.logits(ids))
