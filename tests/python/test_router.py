"""The router in Python and on the command line: explain, correct, new domains, saving."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

coterie = pytest.importorskip("coterie")
pytest.importorskip("coterie._coterie")

pytestmark = pytest.mark.model  # Needs the compiled part.

GARDEN = [
    "when should I prune my roses",
    "how often do tomatoes need water",
    "which soil do blueberries like",
    "my basil leaves turn yellow",
    "how deep do I plant tulip bulbs",
    "what can I sow in march",
    "how do I keep slugs off the lettuce",
    "when are pumpkins ripe",
    "can I compost orange peels",
    "how far apart do I plant cabbages",
]


def command(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "coterie", "router", *words], capture_output=True, text=True
    )


def test_an_explanation_names_words_and_the_nearest_examples() -> None:
    scores = coterie.Router.default().explain("write a bash loop over all text files")
    assert scores.domain == "code"
    features = scores.explanation["features"]
    assert features and all(isinstance(weight, float) for _, weight in features)
    nearest = scores.explanation["nearest"]
    assert len(nearest) == 3
    assert nearest[0][1] == "code"
    assert nearest[0][2] >= nearest[1][2] >= nearest[2][2]


def test_a_correction_acts_at_once_and_survives_a_restart(tmp_path: Path) -> None:
    router = coterie.Router.default()
    prompt = "prune the roses"
    other = "writing" if router.classify(prompt).domain != "writing" else "math"
    router.correct(prompt, other)
    assert router.classify(prompt).domain == other
    router.save(tmp_path / "mine.gguf")
    assert coterie.Router.load(tmp_path / "mine.gguf").classify(prompt).domain == other


def test_a_domain_is_added_from_ten_examples(tmp_path: Path) -> None:
    router = coterie.Router.default()
    router.add_domain("gardening", GARDEN)
    assert "gardening" in router.domains
    assert router.classify("when should I prune my apple tree").domain == "gardening"
    assert router.classify("Write a Python function that sorts a list.").domain == "code"
    router.save(tmp_path / "mine.gguf")
    again = coterie.Router.load(tmp_path / "mine.gguf")
    assert again.classify("how often do cucumbers need water").domain == "gardening"


def test_wrong_arguments_are_refused_in_words() -> None:
    router = coterie.Router.default()
    with pytest.raises(ValueError):
        router.add_domain("", GARDEN)
    with pytest.raises(ValueError):
        router.add_domain("gardening", [])
    with pytest.raises((ValueError, KeyError)):
        router.correct("", "code")


def test_the_commands_explain_correct_and_add_a_domain(tmp_path: Path) -> None:
    explained = json.loads(command("explain", "sort a list in python", "--json").stdout)
    assert explained["domain"] == "code"
    mine = str(tmp_path / "mine.gguf")
    corrected = command("correct", "prune the roses", "math", "-o", mine, "--json")
    assert json.loads(corrected.stdout)["path"] == mine
    assert coterie.Router.load(mine).classify("prune the roses").domain == "math"
    file = tmp_path / "garden.txt"
    file.write_text("\n".join(GARDEN) + "\n")
    added = command("add-domain", "gardening", str(file), "--router", mine, "-o", mine)
    assert "gardening added from 10 examples" in added.stdout
    assert "gardening" in coterie.Router.load(mine).domains
    missing = command("add-domain", "gardening", str(tmp_path / "no.txt"), "-o", mine)
    assert missing.returncode == 1 and missing.stderr.count("\n") == 1
    assert "no.txt" in missing.stderr
