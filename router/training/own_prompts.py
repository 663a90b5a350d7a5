"""Writes our own training prompts: templates of what people ask, filled in several ways each.

    python own_prompts.py own_prompts.jsonl [--texts wikitext.txt] [--commands smart_home.jsonl]

The public sets hold few prompts as people type them to an assistant, and nearly none in other
languages than English; the own_*.json files are ours and fill those gaps. --texts gives paragraphs
to paste where a template takes a text, --commands adds JSON lines whose `text` is a command for a
home (label assistant).
"""

import argparse
import json
import pathlib
import random
import re
from collections.abc import Iterator

SLOT = re.compile(r"\{(\w+)\}")
HERE = pathlib.Path(__file__).parent
PASTED = {"para", "text"}  # Slots that a paragraph of --texts may fill.


class Filler:
    """Fills slots and roughens prompts as people do who type them."""

    def __init__(self, slots: dict[str, list[str]], texts: list[str], rng: random.Random) -> None:
        self.slots, self.texts, self.rng = slots, texts, rng

    def fill(self, template: str) -> str:
        """Replaces each {slot} that is one of ours; other braces (code) stay."""

        def choose(match: re.Match[str]) -> str:
            name = match[1]
            if name in PASTED and self.texts and self.rng.random() < 0.4:
                return self.excerpt()
            # What is chosen may have slots of its own.
            return self.fill(self.rng.choice(self.slots[name])) if name in self.slots else match[0]

        return SLOT.sub(choose, template)

    def excerpt(self) -> str:
        """One to four sentences out of somebody's text."""
        sentences = self.rng.choice(self.texts).split(" . ")
        begin = self.rng.randrange(len(sentences))
        return ". ".join(sentences[begin : begin + self.rng.randint(1, 4)]).strip() + "."

    def vary(self, text: str) -> str:
        """People write without capitals and full stops, and are polite or not."""
        draw = self.rng.random()
        if draw < 0.15:
            return text[0].lower() + text[1:]
        if draw < 0.25:
            return text.rstrip("?.!")
        if draw < 0.30 and "\n" not in text:
            return "Please " + text[0].lower() + text[1:]
        return text

    def mistype(self, text: str) -> str:
        """One or two slips of the finger in words of letters."""
        letters = [i for i in range(1, len(text) - 1) if text[i - 1 : i + 2].isalpha()]
        for at in self.rng.sample(letters, min(len(letters), self.rng.randint(1, 2))):
            kind = self.rng.randrange(3)
            if kind == 0:
                text = text[:at] + text[at + 1] + text[at] + text[at + 2 :]
            elif kind == 1:
                text = text[:at] + "\0" + text[at + 1 :]
            else:
                text = text[:at] + text[at] + text[at:-1] + text[-1]
        return text.replace("\0", "")


def read_texts(path: pathlib.Path | None) -> list[str]:
    """Paragraphs without the marks of a language modelling set."""
    if path is None:
        return []
    texts = []
    for line in path.read_text("utf-8").splitlines():
        line = line.strip().replace(" @-@ ", "-").replace(" @,@ ", ",").replace(" @.@ ", ".")
        if not line.startswith("=") and len(line) > 200 and "<unk>" not in line:
            texts.append(re.sub(r" ([,;:)'])", r"\1", line))
    return texts


def english(texts: list[str], rng: random.Random, share: float) -> Iterator[dict[str, str]]:
    """own_templates.json and own_natural.json, each template up to 8 times `share`."""
    for name, source in (("own_templates.json", "own"), ("own_natural.json", "own-natural")):
        data = json.loads((HERE / name).read_text("utf-8"))
        filler = Filler(data["slots"], texts, rng)
        openers, closers = data.get("openers", [""]), data.get("closers", [""])
        for label, templates in data["templates"].items():
            for template in templates:
                count = round(8 * share) if SLOT.search(template) else 1
                for _ in range(count):
                    text = filler.vary(filler.fill(template))
                    if rng.random() < 0.1:
                        text = rng.choice(openers) + text
                    if rng.random() < 0.08:
                        text += rng.choice(closers)
                    if rng.random() < 0.1:
                        text = filler.mistype(text)
                    yield {"text": text, "label": label, "source": source}
        for label, templates in data.get("other_languages", {}).items():
            for template in templates:
                for _ in range(8 if SLOT.search(template) else 1):
                    text = filler.fill(template)
                    yield {"text": text, "label": label, "source": "own-languages"}


def other_languages(rng: random.Random) -> Iterator[dict[str, str]]:
    """own_languages.json, with the language in the source: own-languages:de."""
    for language, parts in json.loads((HERE / "own_languages.json").read_text("utf-8")).items():
        filler = Filler(parts["slots"], [], rng)
        for label, templates in parts.items():
            if label == "slots":
                continue
            for template in templates:
                for _ in range(4 if SLOT.search(template) else 2):
                    text = filler.fill(template)
                    text = text.rstrip("?.!？。") if rng.random() < 0.2 else text
                    yield {"text": text, "label": label, "source": f"own-languages:{language}"}


def prompts(
    texts: list[str], commands: pathlib.Path | None = None, share: float = 1.0, seed: int = 7
) -> list[dict[str, str]]:
    """Rows of text, label and source; each text once."""
    rng = random.Random(seed)
    rows = {row["text"]: row for row in (*english(texts, rng, share), *other_languages(rng))}
    if commands is not None:
        for line in commands.read_text("utf-8").splitlines():
            text = json.loads(line)["text"]
            rows[text] = {"text": text, "label": "assistant", "source": "smart_home"}
    return list(rows.values())


def evenly(rows: list[dict[str, str]], n: int) -> Iterator[dict[str, str]]:
    """n rows of each label, of those that a person can read at a glance."""
    by_label: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        if len(row["text"]) <= 160:
            by_label.setdefault(row["label"], []).append(row)
    for group in by_label.values():
        for i in range(n):
            yield group[i * len(group) // n]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--texts", type=pathlib.Path)
    parser.add_argument("--commands", type=pathlib.Path)
    parser.add_argument("--share", type=float, default=1.0)
    parser.add_argument("--only", type=int, help="of each label this many, short, evenly taken")
    args = parser.parse_args()
    with args.out.open("w", encoding="utf-8") as out:
        rows = prompts(read_texts(args.texts), args.commands, args.share)
        for row in evenly(rows, args.only) if args.only else rows:
            out.write(json.dumps(row, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
