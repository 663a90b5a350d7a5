"""Writes the request traces that bench/replay.py replays, the same ones each time.

    python bench/workloads/make.py [FOLDER]      the folder of this script if not given

Who is asked in which order comes from the workloads of `coterie simulate`. Requests that arrive
together make one turn; the next turn is sent when all of the last have been answered, so that a
trace means the same on a fast machine and on a slow one. No prompt comes twice: what is kept of one
answers no other.
"""

from __future__ import annotations

import json
import random
import sys
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from coterie import workload

SMALL, MIDDLE, CODE = "smollm2-135m", "gemma-3-270m", "qwen2.5-coder-0.5b"
MAX_TOKENS = 8

# The middle one is a base model: it continues text.
ASKED = {
    SMALL: ("Name one thing that is {}.", "Where would you find something {}?"),
    MIDDLE: ("The word {} means", "Something that is {} looks"),
    CODE: (
        'Write a Python function that counts the word "{}" in a text.',
        'Write a regular expression that finds "{}" at the end of a line.',
    ),
}
WORDS = (
    *("amber", "bitter", "bright", "brittle", "calm", "copper", "crisp", "curved", "damp", "dense"),
    *("distant", "dusty", "early", "fragile", "frozen", "gentle", "golden", "heavy", "hollow"),
    *("humid", "loud", "narrow", "pale", "quiet", "rapid", "rough", "salty", "silver", "smooth"),
    *("soft", "steep", "sudden"),
)


@dataclass(frozen=True)
class Kind:
    """what: for people; workload: of `coterie simulate`; fits: experts in memory at most."""

    what: str
    workload: str
    experts: tuple[str, ...]
    fits: int
    n_requests: int
    seed: int = 1


KINDS = {
    "cyclic": Kind("one expert after the other", "cyclic", (SMALL, MIDDLE, CODE), 2, 36),
    "zipf": Kind("the smaller the oftener", "zipf", (SMALL, MIDDLE, CODE), 2, 48),
    "two-in-turn": Kind("two experts in turn", "ping-pong", (MIDDLE, CODE), 1, 24),
    "bursts": Kind("six at once, of any expert", "bursts", (SMALL, MIDDLE, CODE), 2, 48, 3),
}


def trace(kind: Kind) -> dict[str, object]:
    stream = workload.make(
        kind.workload,
        [workload.base_of(expert, 1) for expert in kind.experts],
        n_requests=kind.n_requests,
        gap_s=1,
        hold_s=1,
        kv_bytes=1,
        seed=kind.seed,
    )
    turns = sorted({each.arrival_s for each in stream.requests})
    chance = random.Random(kind.seed)
    prompts = {}
    for expert in kind.experts:
        every = [form.format(word) for form, word in product(ASKED[expert], WORDS)]
        prompts[expert] = chance.sample(every, len(every))
    requests = []
    for each in stream.requests:
        expert = kind.experts[each.base]
        requests.append(
            {
                "turn": turns.index(each.arrival_s),
                "expert": expert,
                "prompt": prompts[expert].pop(),
                "max_tokens": MAX_TOKENS,
            }
        )
    return {"what": kind.what, "experts": kind.experts, "fits": kind.fits, "requests": requests}


def text(kind: Kind) -> str:
    """JSON with a request a line."""
    fields = trace(kind)
    requests = fields.pop("requests")
    assert isinstance(requests, list)
    head = ",\n ".join(f"{json.dumps(key)}: {json.dumps(fields[key])}" for key in fields)
    lines = ",\n  ".join(json.dumps(each) for each in requests)
    return f'{{{head},\n "requests": [\n  {lines}\n ]}}\n'


def main() -> int:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    for name, kind in KINDS.items():
        (folder / f"{name}.json").write_text(text(kind))
    return 0


if __name__ == "__main__":
    sys.exit(main())
