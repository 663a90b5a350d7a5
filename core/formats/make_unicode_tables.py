#!/usr/bin/env python3
"""Writes unicode_tables.cc: what the tokenizers need to know of Unicode.

    pip install unicodedata2==16.0.0 tokenizers==0.23.3
    python make_unicode_tables.py > unicode_tables.cc

Letters, numbers and white space are Unicode 16, which is what the regex engine of Hugging Face
tokenizers follows at every code point (this script checks it). Its other parts follow other
versions: digits and lower case Unicode 17, normalisation and the BERT classes older ones. Models
were trained on what that library does, so those properties are asked of the library itself, one
code point at a time.
"""

import sys
import unicodedata2 as unicode_data

from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers
from tokenizers import __version__ as tokenizers_version

CODE_POINTS = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
BLOCK = 256
WHITE_SPACE = {9, 10, 11, 12, 13, 32, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B),
               0x2028, 0x2029, 0x202F, 0x205F, 0x3000}
# Bits of a class byte; unicode_tables.h names them in this order.
LETTER, NUMBER, SPACE, DIGIT, NORMALIZES, BERT_REMOVED, BERT_STRIPPED, BERT_PUNCTUATION = (
    1 << i for i in range(8))


def is_hangul(c):
    return 0xAC00 <= c < 0xAC00 + 11172


def splits_out(pre_tokenizer, text):
    return len(pre_tokenizer.pre_tokenize_str(text))


def regex_class(pattern):
    split = pre_tokenizers.Split(Regex(pattern), "removed")
    return {c for c in CODE_POINTS if splits_out(split, chr(c)) == 0}


def bert(**parts):
    every = dict(clean_text=False, handle_chinese_chars=False, strip_accents=False, lowercase=False)
    return normalizers.BertNormalizer(**{**every, **parts}).normalize_str


def decompositions():
    nfd = normalizers.NFD().normalize_str
    return {c: [ord(d) for d in nfd(chr(c))] for c in CODE_POINTS
            if not is_hangul(c) and nfd(chr(c)) != chr(c)}


def combining_classes():
    """Unicode 16's, where the library sorts by them; 0 where it does not know the mark yet."""
    nfd = normalizers.NFD().normalize_str
    classes = {}
    for c in CODE_POINTS:
        ccc = unicode_data.combining(chr(c))
        if ccc == 0 or nfd(chr(c)) != chr(c):
            continue
        moved = nfd("a" + chr(c) + "\u0334") if ccc > 1 else nfd("a\u0301" + chr(c))
        if moved in ("a\u0334" + chr(c), "a" + chr(c) + "\u0301"):
            classes[c] = ccc
    return classes


def compositions():
    nfc = normalizers.NFC().normalize_str
    pairs = {}
    for c in CODE_POINTS:
        parts = unicode_data.decomposition(chr(c)).split()
        if len(parts) != 2 or parts[0].startswith("<"):
            continue
        a, b = (int(p, 16) for p in parts)
        if nfc(chr(a) + chr(b)) == chr(c):
            pairs[(a, b)] = c
    return pairs


def lower_case():
    lower = normalizers.Lowercase().normalize_str
    mapped = {c: lower(chr(c)) for c in CODE_POINTS if lower(chr(c)) != chr(c)}
    return {c: ord(t) for c, t in mapped.items() if len(t) == 1}


def word_ranges():
    """What may not stand beside an added token that is a single word: first and last of each run.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.add_tokens([AddedToken("!", single_word=True, normalized=False)])
    texts = ["!" + chr(c) for c in CODE_POINTS]
    found = tokenizer.encode_batch(texts)
    words = [c for c, encoding in zip(CODE_POINTS, found) if not encoding.ids]
    ranges = []
    for c in words:
        if ranges and ranges[-1][1] == c - 1:
            ranges[-1][1] = c
        else:
            ranges.append([c, c])
    return ranges


def class_bytes(ccc, pairs):
    classes = [0] * 0x110000

    def mark(bit, code_points):
        for c in code_points:
            classes[c] |= bit

    letters, numbers = regex_class(r"\p{L}"), regex_class(r"\p{N}")
    assert letters == {c for c in CODE_POINTS if unicode_data.category(chr(c))[0] == "L"}
    assert numbers == {c for c in CODE_POINTS if unicode_data.category(chr(c))[0] == "N"}
    assert regex_class(r"\s") == WHITE_SPACE
    nfc = normalizers.NFC().normalize_str
    digits = pre_tokenizers.Digits(individual_digits=True)
    punctuation = pre_tokenizers.BertPreTokenizer()
    clean, strip = bert(clean_text=True), bert(strip_accents=True)
    mark(LETTER, letters)
    mark(NUMBER, numbers)
    mark(SPACE, WHITE_SPACE)
    mark(DIGIT, (c for c in CODE_POINTS if splits_out(digits, chr(c) + "a") == 2))
    mark(NORMALIZES, ccc)
    mark(NORMALIZES, (b for _, b in pairs))
    mark(NORMALIZES, (c for c in CODE_POINTS if nfc(chr(c)) != chr(c)))
    mark(NORMALIZES, range(0x1161, 0x1176))  # Hangul vowels and finals join what stands before.
    mark(NORMALIZES, range(0x11A8, 0x11C3))
    mark(BERT_REMOVED, (c for c in CODE_POINTS if clean("a" + chr(c) + "a") == "aa"))
    mark(BERT_STRIPPED, (c for c in CODE_POINTS if strip(chr(c)) == ""))
    mark(BERT_PUNCTUATION,
         (c for c in CODE_POINTS if splits_out(punctuation, "a" + chr(c) + "a") == 3))
    return classes


def two_stage(classes):
    blocks, index = [], []
    for start in range(0, len(classes), BLOCK):
        block = tuple(classes[start:start + BLOCK])
        if block not in blocks:
            blocks.append(block)
        index.append(blocks.index(block))
    assert len(blocks) < 256
    return index, [c for block in blocks for c in block]


def emit(declaration, items):
    line = ""
    print(f"{declaration} = {{")
    for item in items:
        if len(line) + len(item) + 1 > 100:
            print(line)
            line = ""
        line += item + ","
    print(line)
    print("};\n")


def main():
    assert unicode_data.unidata_version == "16.0.0"
    ccc, pairs, decomposed, lower = (
        combining_classes(), compositions(), decompositions(), lower_case())
    index, blocks = two_stage(class_bytes(ccc, pairs))
    pool = [d for c in sorted(decomposed) for d in decomposed[c]]
    print(f"""// Generated by make_unicode_tables.py from Unicode {unicode_data.unidata_version} \
(unicodedata2) and tokenizers
// {tokenizers_version}; do not edit. Unicode data: Copyright 1991-2024 Unicode, Inc., Unicode \
License v3,
// https://www.unicode.org/license.txt
#include "core/formats/unicode_tables.h"

// clang-format off
namespace coterie::unicode_tables {{
""")
    emit(f"const uint8_t kClassIndex[{len(index)}]", map(str, index))
    emit(f"const uint8_t kClassBlocks[{len(blocks)}]", map(str, blocks))
    rows, offset = [], 0
    for c in sorted(decomposed):
        rows.append(f"{{0x{c:x},{offset},{len(decomposed[c])}}}")
        offset += len(decomposed[c])
    emit("const Decomposition kDecompositionRows[]", rows)
    emit("const uint32_t kDecompositionPool[]", (f"0x{d:x}" for d in pool))
    emit("const CodePointValue kCombiningRows[]",
         (f"{{0x{c:x},{v}}}" for c, v in sorted(ccc.items())))
    emit("const CodePointValue kLowerRows[]",
         (f"{{0x{c:x},0x{v:x}}}" for c, v in sorted(lower.items())))
    emit("const Composition kCompositionRows[]",
         (f"{{0x{a:x},0x{b:x},0x{c:x}}}" for (a, b), c in sorted(pairs.items())))
    words = word_ranges()
    emit("const CodePointRange kWordRows[]", (f"{{0x{a:x},0x{b:x}}}" for a, b in words))
    print("""const absl::Span<const Decomposition> kDecompositions(kDecompositionRows);
const absl::Span<const CodePointValue> kCombiningClasses(kCombiningRows);
const absl::Span<const CodePointValue> kLowerCase(kLowerRows);
const absl::Span<const Composition> kCompositions(kCompositionRows);
const absl::Span<const CodePointRange> kWordRanges(kWordRows);

}  // namespace coterie::unicode_tables
// clang-format on""")
    print(f"{len(decomposed)} decompositions, {len(pairs)} compositions, {len(ccc)} marks, "
          f"{len(lower)} lower, {len(words)} runs of word characters, {len(blocks)} class bytes", file=sys.stderr)


if __name__ == "__main__":
    main()
