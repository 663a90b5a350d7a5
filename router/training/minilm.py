"""The encoder: BERT in the shape of all-MiniLM-L6-v2, mean pooled, with a linear head."""

import pathlib

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

N_LAYERS, N_HEADS, D_MODEL, D_FF = 6, 12, 384, 1536
EPSILON = 1e-12


class Layer(nn.Module):
    """One post-norm transformer layer of BERT."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.qkv = nn.Linear(D_MODEL, 3 * D_MODEL)
        self.attention_out = nn.Linear(D_MODEL, D_MODEL)
        self.attention_norm = nn.LayerNorm(D_MODEL, EPSILON)
        self.up = nn.Linear(D_MODEL, D_FF)
        self.down = nn.Linear(D_FF, D_MODEL)
        self.out_norm = nn.LayerNorm(D_MODEL, EPSILON)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        n, t, _ = x.shape
        q, k, v = self.qkv(x).view(n, t, 3, N_HEADS, -1).permute(2, 0, 3, 1, 4)
        # Written out: the fused operation's backward pass is ten times slower on a CPU.
        scores = q @ k.transpose(-2, -1) * (D_MODEL // N_HEADS) ** -0.5
        scores = scores.masked_fill(~mask[:, None, None], -1e4)
        attended = (scores.softmax(-1).to(v.dtype) @ v).transpose(1, 2).reshape(n, t, D_MODEL)
        x = self.attention_norm(x + self.dropout(self.attention_out(attended)))
        return self.out_norm(x + self.dropout(self.down(functional.gelu(self.up(x)))))


class Classifier(nn.Module):
    """Token ids [n, t] and a mask (true: a token) to logits [n, n_labels]."""

    def __init__(self, n_labels: int, vocab_size: int, max_tokens: int, dropout: float) -> None:
        super().__init__()
        self.words = nn.Embedding(vocab_size, D_MODEL)
        self.positions = nn.Embedding(max_tokens, D_MODEL)
        self.norm = nn.LayerNorm(D_MODEL, EPSILON)
        self.layers = nn.ModuleList([Layer(dropout) for _ in range(N_LAYERS)])
        self.head = nn.Linear(D_MODEL, n_labels)
        self.dropout = nn.Dropout(dropout)

    def pooled(self, ids: Tensor, mask: Tensor) -> Tensor:
        """The mean of the last layer over the tokens, [n, D_MODEL]."""
        positions = torch.arange(ids.shape[1], device=ids.device)
        x = self.dropout(self.norm(self.words(ids) + self.positions(positions)))
        for layer in self.layers:
            x = layer(x, mask)
        weights = mask.to(torch.float32)[..., None]
        return (x.to(torch.float32) * weights).sum(1) / weights.sum(1)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        return self.head(self.dropout(self.pooled(ids, mask)))


def load_classifier(
    encoder: pathlib.Path, n_labels: int, max_tokens: int, dropout: float
) -> Classifier:
    """The published encoder with a new head of zeros."""
    tensors = load_file(encoder / "model.safetensors")
    model = Classifier(
        n_labels, len(tensors["embeddings.word_embeddings.weight"]), max_tokens, dropout
    )
    # One segment only: its type embedding is part of every position.
    positions = tensors["embeddings.position_embeddings.weight"][:max_tokens]
    state = {
        "words.weight": tensors["embeddings.word_embeddings.weight"],
        "positions.weight": positions + tensors["embeddings.token_type_embeddings.weight"][0],
        "norm.weight": tensors["embeddings.LayerNorm.weight"],
        "norm.bias": tensors["embeddings.LayerNorm.bias"],
        "head.weight": torch.zeros(n_labels, D_MODEL),
        "head.bias": torch.zeros(n_labels),
    }
    for i in range(N_LAYERS):
        for kind in ("weight", "bias"):
            state.update(_layer_state(tensors, i, kind))
    model.load_state_dict(state)
    return model


def _layer_state(tensors: dict[str, Tensor], i: int, kind: str) -> dict[str, Tensor]:
    old, new = f"encoder.layer.{i}.", f"layers.{i}."
    parts = [tensors[f"{old}attention.self.{name}.{kind}"] for name in ("query", "key", "value")]
    return {
        f"{new}qkv.{kind}": torch.cat(parts),
        f"{new}attention_out.{kind}": tensors[f"{old}attention.output.dense.{kind}"],
        f"{new}attention_norm.{kind}": tensors[f"{old}attention.output.LayerNorm.{kind}"],
        f"{new}up.{kind}": tensors[f"{old}intermediate.dense.{kind}"],
        f"{new}down.{kind}": tensors[f"{old}output.dense.{kind}"],
        f"{new}out_norm.{kind}": tensors[f"{old}output.LayerNorm.{kind}"],
    }
