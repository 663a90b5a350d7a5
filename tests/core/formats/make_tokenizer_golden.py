#!/usr/bin/env python3
"""Makes cases for tokenizer_golden_test.cc from Hugging Face tokenizers, the reference.

    pip install tokenizers==0.23.3
    python make_tokenizer_golden.py small OUT_DIR
        small vocabularies trained here, 250 cases a family: what tests/data/tokenizers holds
    python make_tokenizer_golden.py stress FAMILY OUT_FILE N --gguf FILE [--full]
        N random cases and a sweep over the assigned code points (with --full, over all of them
        four times) on the vocabulary of a model, or for wordpiece of router/default_router.gguf;
        then run
        COTERIE_TOKENIZER_CASES=OUT_FILE core_formats_tests --gtest_filter='TokenizerGolden*'

FAMILY: gpt2 smollm llama3 qwen2 sentencepiece wordpiece. A case file is JSON Lines: first the vocabulary, or the
GGUF file it is in, then [text, ids] with special tokens added and recognised.
"""

import argparse
import glob
import json
import mmap
import os
import random
import struct
import sys
import unicodedata

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers import processors, trainers

CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
LLAMA3 = (CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
          r"|\s*[\r\n]+|\s+(?!\S)|\s+")
PRE = {"gpt2": "gpt-2", "smollm": "smollm", "llama3": "llama-bpe", "qwen2": "qwen2"}
MARKS = ["\u0300", "\u0301", "\u0316", "\u0327", "\u0334", "\u0345", "\u05b0", "\u064b", "\u0e38",
         "\u3099", "\u1161", "\u1175", "\u11a8", "\u11c2", "\u0338", "\u0bbe"]
BASES = ["a", "e", "A", "\u00e9", "\u1ec7", "\u1100", "\u1112", "\uac00", "\uac01", "\u304b",
         "\u0915", "\u0bc6", "\u212b", "\u2126", "\u0958", "\ufb1d", "\uf900", "\u0130", "\u03a3",
         "\u1e9e"]
SPACES = [" ", " ", "  ", "\t", "\n", "\r\n", "\r", "\u00a0", "\u2003", "\u3000", "\u0085",
          "\u200b", "\u001c", "\f", "\v"]
BITS = ["\u2581", "\u2581\u2581", "'s", "'S", "'\u017f", "'Re", "'lL", "'d", "'x", "''", "'", "123", "\u00bd", "\u0664",
        "\u4e00", "!", "...", "(x)", "\U0001f469\u200d\U0001f4bb", "\ufffd", "\0", "\u00ad", "==",
        "\u2167", "_", "-", "\u00c9cole", "na\u00efve", "\U00020000", "\U000e0001", "\ue000"]


def pre_tokenizer(family):
    if family == "gpt2":
        return pre_tokenizers.ByteLevel(add_prefix_space=False)
    if family == "smollm":
        return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True),
                                        pre_tokenizers.ByteLevel(add_prefix_space=False)])
    pattern = LLAMA3 if family == "llama3" else LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
    return pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(pattern), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def byte_level(family, tokens, merges, types):
    vocab = {t: i for i, t in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[tuple(m.split(" ")) for m in merges],
                                     ignore_merges=family == "llama3"))
    if family == "qwen2":
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizer(family)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False)
                                  for t, kind in zip(tokens, types) if kind == 3])
    tokenizer.add_tokens([AddedToken(t, special=False, normalized=False)
                          for t, kind in zip(tokens, types) if kind == 4])
    assert tokenizer.get_vocab_size() == len(tokens)
    return tokenizer


def word_piece(tokens):
    vocab = {t: i for i, t in enumerate(tokens)}
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        special_tokens=[("[CLS]", vocab["[CLS]"]), ("[SEP]", vocab["[SEP]"])])
    return tokenizer


def in_reference_form(tokens, types):
    """As SentencePiece's own file and tokenizer.json have them: llama.cpp's converter spells the
    mark of a space as a space in user-defined tokens."""
    return [t.replace(" ", "\u2581") if kind == 4 else t for t, kind in zip(tokens, types)]


def merges_by_score(vocab, scores):
    """Every way to make a piece of two others; the best score first, then the longest left side.
    That is how transformers lists the merges of a SentencePiece vocabulary in tokenizer.json."""
    merges = []
    for piece, score in scores.items():
        for i in range(1, len(piece)):
            if piece[:i] in vocab and piece[i:] in vocab:
                merges.append((score, i, len(piece) - i, piece))
    merges.sort(key=lambda m: m[:3], reverse=True)
    return [(piece[:i], piece[i:]) for _, i, _, piece in merges]


def sentence_piece(tokens, scores, types, adds_space=False):
    tokens = in_reference_form(tokens, types)
    vocab = {t: i for i, t in enumerate(tokens)}
    # The converter loses the score of symbols, which is 0, too.
    merges = merges_by_score(vocab, {t: 0.0 if kind == 4 else score for t, score, kind
                                     in zip(tokens, scores, types) if kind in (1, 4)})
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges, byte_fallback=True,
                                     fuse_unk=True, unk_token="<unk>"))
    steps = [normalizers.Prepend("\u2581")] if adds_space else []
    tokenizer.normalizer = normalizers.Sequence(steps + [normalizers.Replace(" ", "\u2581")])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("\u2581", " "),
                                           decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_tokens([AddedToken(t, special=kind == 3, normalized=False)
                          for t, kind in zip(tokens, types) if kind in (2, 3, 4)])
    assert tokenizer.get_vocab_size() == len(tokens)
    return tokenizer


def corpus():
    """Text that is on every machine with this script's Python: its own library."""
    files = sorted(glob.glob(os.path.join(os.path.dirname(os.__file__), "*.py")))[:60]
    return "\n".join(open(f, encoding="utf-8", errors="ignore").read() for f in files)


def cases(rng, text, specials, n):
    def stretch(longest):
        start = rng.randrange(len(text))
        return text[start:start + rng.randrange(1, longest)]

    def any_char():
        return chr(rng.choice([rng.randrange(0x80), rng.randrange(0x800), rng.randrange(0xD800),
                               rng.randrange(0xE000, 0x10000), rng.randrange(0x10000, 0x110000),
                               rng.randrange(0x10000, 0x20000)]))

    makers = [
        lambda: stretch(60),
        lambda: "".join(any_char() for _ in range(rng.randrange(1, 24))),
        lambda: "".join(rng.choice(SPACES + BITS) for _ in range(rng.randrange(1, 16))),
        lambda: "".join(rng.choice(BASES + MARKS + MARKS) for _ in range(rng.randrange(1, 12))),
        lambda: "".join(rng.choice([stretch(8), any_char(), rng.choice(SPACES), rng.choice(BITS)])
                        for _ in range(rng.randrange(1, 16))),
        lambda: "".join(rng.choice([rng.choice(specials), rng.choice(specials)[:-1], stretch(6),
                                    rng.choice(SPACES)]) for _ in range(rng.randrange(1, 8))),
        lambda: rng.choice(["a", "ab", " ", "=", "\n", "1", "\u00e9", "\u0301"])
        * rng.randrange(300),
    ]
    return [rng.choice(makers)() for _ in range(n)]


CONTEXTS = ["", "a", " ", "\u0301e"]


def sweep(rng, full):
    """Code points, each between two of its neighbours and in a context: all of them in all contexts
    if full; else those that are assigned, and some of the rest, in one each."""
    points = [chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000]
    if not full:
        points = [c for i, c in enumerate(points)
                  if i % 16 == 0 or unicodedata.category(c) not in ("Cn", "Co")]
    return [context.join(points[i:i + 16]) for i in range(0, len(points), 16)
            for context in (CONTEXTS if full else [rng.choice(CONTEXTS)])]


def write(path, head, tokenizer, texts, beside=False):
    """Cases for a vocabulary in `head` and for the same in Hugging Face's form, which may be put
    into a file beside."""
    if beside:
        head["tokenizer_file"] = os.path.abspath(path) + ".tokenizer.json"
        tokenizer.save(head["tokenizer_file"], pretty=False)
    else:
        head["tokenizer"] = json.loads(tokenizer.to_str())
    with open(path, "w", encoding="utf-8") as out:
        print(json.dumps(head, ensure_ascii=True), file=out)
        for text, encoding in zip(texts, tokenizer.encode_batch(texts)):
            print(json.dumps([text, encoding.ids], separators=(",", ":")), file=out)


def gguf_fields(path):
    """The keys of a GGUF file: PyPI's reader takes seconds for a vocabulary of this size."""
    numbers = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q",
               12: "d"}
    with open(path, "rb") as file:
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    at = 24

    def take(form, count=1):
        nonlocal at
        values = struct.unpack_from(f"<{count}{form}", data, at)
        at += struct.calcsize(f"<{count}{form}")
        return values

    def text():
        nonlocal at
        n_bytes = take("Q")[0]
        at += n_bytes
        return data[at - n_bytes:at].decode()

    fields = {}
    for _ in range(struct.unpack_from("<Q", data, 16)[0]):
        key, kind = text(), take("I")[0]
        if kind == 9:
            kind, count = take("I")[0], take("Q")[0]
            fields[key] = ([text() for _ in range(count)] if kind == 8
                           else list(take(numbers[kind], count)))
        else:
            fields[key] = text() if kind == 8 else take(numbers[kind])[0]
    return fields


def read_gguf(path):
    fields = gguf_fields(path)
    second = "scores" if "tokenizer.ggml.scores" in fields else "merges"
    return tuple(fields[f"tokenizer.ggml.{name}"] for name in ("tokens", second, "token_type"))


def family_of(path):
    pre = gguf_fields(path)["tokenizer.ggml.pre"]
    return next(family for family, name in PRE.items() if name == pre)


def read_wordpiece(path):
    return gguf_fields(path)["router.encoder.vocabulary"]


def train_byte_level(family, text, specials):
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizer(family)
    trained.train_from_iterator([text], trainers.BpeTrainer(
        vocab_size=900, show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    model = json.loads(trained.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].get)
    merges = [m if isinstance(m, str) else " ".join(m) for m in model["merges"]]
    return tokens + specials, merges, [1] * len(tokens) + [3] * (len(specials) - 1) + [4]


def train_word_piece(text):
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.train_from_iterator([text + " \u4e00 \u00df \u0391\u03c3 \u1100 \u1161 !"] * 2,
                                  trainers.WordPieceTrainer(
        vocab_size=900, show_progress=False,
        special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]))
    vocab = tokenizer.get_vocab()
    return sorted(vocab, key=vocab.get)


def train_sentence_piece(text):
    trained = Tokenizer(models.BPE())
    trained.normalizer = normalizers.Replace(" ", "\u2581")
    trained.pre_tokenizer = pre_tokenizers.Split("\u2581", "merged_with_next")
    trained.train_from_iterator([text], trainers.BpeTrainer(
        vocab_size=900, limit_alphabet=90, show_progress=False))
    vocab = trained.get_vocab()
    blanks = [c * n for c in ("\n", " ", "\t") for n in range(1 if c != " " else 2, 9)]
    pieces = [t for t in sorted(vocab, key=vocab.get)
              if t not in blanks and t.replace("\u2581", " ") not in blanks]
    specials = ["<unk>", "<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"]
    tags = ["<b>", "<code>"]
    listed = [(specials, 3), (tags + blanks, 4), ([f"<0x{b:02X}>" for b in range(256)], 6),
              (pieces, 1)]
    tokens = [t for part, _ in listed for t in part]
    types = [kind for part, kind in listed for _ in part]
    # Characters come after what they make, as in the files of the family.
    scores = [-float(i if len(t) > 1 else 10000 + i) if kind == 1 else -1000.0
              for i, (t, kind) in enumerate(zip(tokens, types))]
    return tokens, scores, types


def small(out_dir):
    text = corpus()
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|im|>", "<tool_call>"]
    for family, pre in PRE.items():
        tokens, merges, types = train_byte_level(family, text[:200000], specials)
        head = {"pre": pre, "tokens": tokens, "merges": merges, "types": types}
        write(os.path.join(out_dir, f"{family}.jsonl"), head,
              byte_level(family, tokens, merges, types),
              cases(random.Random(1), text, specials, 250))
    tokens, scores, types = train_sentence_piece(text[:200000])
    specials = in_reference_form([t for t, kind in zip(tokens, types) if kind in (3, 4)], [4] * 99)
    for name, adds_space in (("sentencepiece", False), ("sentencepiece_prefix", True)):
        head = {"scores": scores, "tokens": tokens, "types": types, "adds_space": adds_space}
        write(os.path.join(out_dir, f"{name}.jsonl"), head,
              sentence_piece(tokens, scores, types, adds_space),
              cases(random.Random(3), text, specials, 250))
    tokens = train_word_piece(text[:200000])
    write(os.path.join(out_dir, "wordpiece.jsonl"), {"wordpiece": tokens}, word_piece(tokens),
          cases(random.Random(2), text, ["[CLS]", "[MASK]"], 250))


def flags(rng, family, base):
    """Added tokens with every flag, and texts full of them; in Hugging Face's form only."""
    contents = ["<a>", "<a", "qab", "qb", "\u00e9q", "e\u0301x", " qs", "sq ", "\u2581qt", "w_1q",
                "\u0301", "qab<q", "q<<", "q\n"]  # None is in the vocabulary.
    assert not set(contents) & set(base.get_vocab())
    texts = []
    for content in contents:
        kinds = dict(zip(("single_word", "lstrip", "rstrip", "normalized", "special"),
                         (rng.random() < 0.4 for _ in range(5))))
        base.add_tokens([AddedToken(content, **kinds)])
    bits = contents + [" ", "  ", "\t", "\u00a0", "\u3000", "x", "_", "\u0338", "e", "q", "\u4e00", "."]
    for _ in range(400):
        texts.append("".join(rng.choice(bits) for _ in range(rng.randrange(1, 12))))
    return base, texts


def small(out_dir):
    text = corpus()
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|im|>", "<tool_call>"]
    for family, pre in PRE.items():
        tokens, merges, types = train_byte_level(family, text[:200000], specials)
        head = {"pre": pre, "tokens": tokens, "merges": merges, "types": types}
        reference = byte_level(family, tokens, merges, types)
        write(os.path.join(out_dir, f"{family}.jsonl"), head, reference,
              cases(random.Random(1), text, specials, 250))
        if family in ("qwen2", "llama3"):
            write(os.path.join(out_dir, f"flags_{family}.jsonl"), {},
                  *flags(random.Random(4), family, reference))
    tokens, scores, types = train_sentence_piece(text[:200000])
    specials = in_reference_form([t for t, kind in zip(tokens, types) if kind in (3, 4)], [4] * 99)
    for name, adds_space in (("sentencepiece", False), ("sentencepiece_prefix", True)):
        head = {"scores": scores, "tokens": tokens, "types": types, "adds_space": adds_space}
        reference = sentence_piece(tokens, scores, types, adds_space)
        write(os.path.join(out_dir, f"{name}.jsonl"), head, reference,
              cases(random.Random(3), text, specials, 250))
        if not adds_space:
            write(os.path.join(out_dir, f"flags_{name}.jsonl"), {},
                  *flags(random.Random(5), name, reference))
    tokens = train_word_piece(text[:200000])
    write(os.path.join(out_dir, "wordpiece.jsonl"), {"wordpiece": tokens}, word_piece(tokens),
          cases(random.Random(2), text, ["[CLS]", "[MASK]"], 250))


def stress(family, out, n, gguf, full):
    text, rng = corpus(), random.Random(n)
    head = {"gguf": os.path.abspath(gguf)}
    if family == "wordpiece":
        tokens, specials = read_wordpiece(gguf), ["[CLS]", "[MASK]", "[UNK]"]
        head, reference = {"wordpiece": tokens}, word_piece(tokens)
    elif family == "sentencepiece":
        tokens, scores, types = read_gguf(gguf)
        specials = in_reference_form([t for t, kind in zip(tokens, types) if kind in (3, 4)],
                                     [4] * len(tokens))
        reference = sentence_piece(tokens, scores, types)
    else:
        tokens, merges, types = read_gguf(gguf)
        specials = [t for t, kind in zip(tokens, types) if kind in (3, 4)]
        reference = byte_level(family, tokens, merges, types)
        head["pre"] = PRE[family]
    texts = cases(rng, text, specials, n)
    texts += sweep(rng, full)
    write(out, head, reference, texts, beside=True)
    print(f"{family}: {len(texts)} strings")


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("small")
    command.add_argument("out_dir")
    command = commands.add_parser("stress")
    command.add_argument("family", choices=[*PRE, "sentencepiece", "wordpiece"])
    command.add_argument("out_file")
    command.add_argument("n", type=int)
    command.add_argument("--gguf", required=True)
    command.add_argument("--full", action="store_true")
    args = parser.parse_args()
    if args.command == "small":
        small(args.out_dir)
    else:
        stress(args.family, args.out_file, args.n, args.gguf, args.full)


if __name__ == "__main__":
    sys.exit(main())
