"""Writes our own training prompts: templates of what people ask, filled in every way once.

    python own_prompts.py own_prompts.jsonl [--per-template 8]

The public sets hold few prompts as people type them to an assistant, and nearly none in other
languages than English; own_templates.json is ours and fills those gaps.
"""

import argparse
import json
import pathlib
import random
import re

SLOT = re.compile(r"\{(\w+)\}")


def fill(template: str, slots: dict[str, list[str]], rng: random.Random) -> str:
    """Replaces each {slot} that is one of ours; other braces (code) stay."""

    def choose(match: re.Match[str]) -> str:
        return rng.choice(slots[match[1]]) if match[1] in slots else match[0]

    return SLOT.sub(choose, template)


def vary(text: str, rng: random.Random) -> str:
    """People write without capitals and full stops, and are polite or not."""
    draw = rng.random()
    if draw < 0.15:
        return text[0].lower() + text[1:]
    if draw < 0.25:
        return text.rstrip("?.!")
    if draw < 0.30 and "\n" not in text:
        return "Please " + text[0].lower() + text[1:]
    return text


def prompts(path: pathlib.Path, per_template: int, seed: int = 7) -> list[dict[str, str]]:
    """Rows of text, label and source; each text once."""
    data = json.loads(path.read_text(encoding="utf-8"))
    rng = random.Random(seed)
    rows: dict[str, dict[str, str]] = {}
    for group, source in (("templates", "own"), ("other_languages", "own-languages")):
        for label, templates in data[group].items():
            for template in templates:
                count = per_template if SLOT.search(template) else 1
                for _ in range(count):
                    text = fill(template, data["slots"], rng)
                    text = vary(text, rng) if source == "own" else text
                    rows[text] = {"text": text, "label": label, "source": source}
    return list(rows.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--per-template", type=int, default=8)
    args = parser.parse_args()
    templates = pathlib.Path(__file__).with_name("own_templates.json")
    with args.out.open("w", encoding="utf-8") as out:
        for row in prompts(templates, args.per_template):
            out.write(json.dumps(row, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
