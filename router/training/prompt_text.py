"""Prompts as the router reads them: rows of a data set, cut and turned into token ids.

The cutting rule is part of the model: router/prompt_text.cc does exactly the same.
"""

import json
import pathlib
import re
from dataclasses import dataclass

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

HEAD_WORDS, TAIL_WORDS = 60, 25
HEAD_BYTES, TAIL_BYTES = 2048, 1024
MAX_TOKENS, TAIL_TOKENS = 80, 24  # MAX_TOKENS counts [CLS] and [SEP].
LABELS = ["code", "math", "writing", "general", "textops", "translate", "assistant"]

_SPACES = re.compile(r"[ \t\n\v\f\r]+")


@dataclass(frozen=True)
class Row:
    """A prompt with its domain and the data set it came from."""

    text: str
    label: str
    source: str


def read_rows(path: pathlib.Path) -> list[Row]:
    """Reads JSON lines of text, label and source; refuses labels that are not in LABELS."""
    rows = []
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            record = json.loads(line)
            if record["label"] not in LABELS:
                raise ValueError(f"{path}:{number}: unknown label {record['label']!r}")
            rows.append(Row(record["text"], record["label"], record.get("source", "")))
    return rows


def cut(text: str) -> str:
    """Keeps the first 60 and the last 25 words, and at most 3 KiB of them.

    What a prompt wants stands at its ends; the middle is material, and learning from it lowers
    accuracy on unseen sources.
    """
    words = [word for word in _SPACES.split(text) if word]
    if len(words) > HEAD_WORDS + TAIL_WORDS:
        words = words[:HEAD_WORDS] + words[-TAIL_WORDS:]
    joined = " ".join(words).encode("utf-8", errors="ignore")
    if len(joined) > HEAD_BYTES + TAIL_BYTES:
        joined = joined[:HEAD_BYTES] + b" " + joined[-TAIL_BYTES:]
    return joined.decode("utf-8", errors="ignore")


def open_tokenizer(vocab_path: pathlib.Path) -> Tokenizer:
    """WordPiece over a vocab.txt, lower case, without added tokens: text never becomes [SEP]."""
    words = vocab_path.read_text(encoding="utf-8").splitlines()
    vocab = {word: index for index, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


def encode(tokenizer: Tokenizer, texts: list[str]) -> list[list[int]]:
    """Token ids with [CLS] and [SEP]; of a prompt that is too long the first and the last ones."""
    cls_id, sep_id = tokenizer.token_to_id("[CLS]"), tokenizer.token_to_id("[SEP]")
    result = []
    for encoding in tokenizer.encode_batch([cut(text) for text in texts]):
        ids = encoding.ids
        if len(ids) > MAX_TOKENS - 2:
            ids = ids[: MAX_TOKENS - 2 - TAIL_TOKENS] + ids[-TAIL_TOKENS:]
        result.append([cls_id, *ids, sep_id])
    return result
