"""Adapters mean the same here, in PEFT and in llama.cpp, on the same quantised file.

    COTERIE_PEERS=PYTHON .venv/bin/python -m pytest -q -m peer tests/python/test_adapter_peers.py

PYTHON has torch, transformers, peft, gguf and llama-cpp-python (docs/adapters.md). A minute or two
per model, and four times its parameters in memory.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import numpy
import pytest
from adapter_peer import IDS

coterie = pytest.importorskip("coterie")
pytestmark = [pytest.mark.peer, pytest.mark.model]

PEER = os.environ.get("COTERIE_PEERS")
SCRIPT = Path(__file__).with_name("adapter_peer.py")


def run_peer(*arguments: object) -> None:
    if PEER is None:
        pytest.skip("COTERIE_PEERS names no interpreter with peft and llama-cpp-python")
    command = [PEER, str(SCRIPT), *(str(argument) for argument in arguments)]
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=1200)


def log_probabilities(logits: Any) -> Any:
    logits = numpy.asarray(logits, dtype=numpy.float64)
    highest = logits.max(-1, keepdims=True)
    return logits - highest - numpy.log(numpy.exp(logits - highest).sum(-1, keepdims=True))


def mean_difference(a: Any, b: Any) -> float:
    n = min(a.shape[-1], b.shape[-1])  # Some pad their vocabulary.
    return float(numpy.abs(log_probabilities(a[:, :n]) - log_probabilities(b[:, :n])).mean())


class Case:
    """An adapter made by PEFT for a model of the store, and what each makes of it."""

    def __init__(self, model: str, folder: Path) -> None:
        from coterie.store import Store

        store = Store()
        record = store.find(model)
        if record is None:
            pytest.fail(f"{model} is not in the store: coterie pull {model}")
        self.path = Path(store.path_of(record)).resolve()
        named = folder / f"{model}.gguf"  # transformers wants the ending.
        named.symlink_to(self.path)
        self.path = named
        self.folder = folder
        run_peer("make", self.path, folder / "made")
        self.expert = coterie.Expert.open(self.path, activations="f32")
        self.adapter = coterie.Adapter.open(folder / "made", base=self.expert)
        self.ours = self.expert.logits(IDS, adapter=self.adapter)
        run_peer("peft", self.path, folder / "made", folder / "peft.npy")
        self.peft = numpy.load(folder / "peft.npy")


@pytest.fixture(scope="module", params=["smollm2-135m", "qwen2.5-coder-0.5b"])
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    return Case(request.param, tmp_path_factory.mktemp(request.param.replace(".", "_")))


def test_an_adapter_made_by_peft_gives_its_log_probabilities_here(case: Case) -> None:
    without = mean_difference(case.expert.logits(IDS), case.ours)
    run_peer("bare", case.path, case.folder / "bare.npy")
    base = mean_difference(case.expert.logits(IDS), numpy.load(case.folder / "bare.npy"))
    difference = mean_difference(case.ours, case.peft)
    print(f"\nmean |difference|: {difference:.5f}, without an adapter {base:.5f}", end="; ")
    print(f"the adapter moves {without:.3f}")
    assert without > 0.05
    assert difference <= 0.01


def test_what_is_saved_here_is_the_same_adapter_to_peft(case: Case) -> None:
    case.adapter.save(case.folder / "ours")
    run_peer("peft", case.path, case.folder / "ours", case.folder / "ours.npy")
    saved = numpy.load(case.folder / "ours.npy")
    difference = numpy.abs(log_probabilities(saved) - log_probabilities(case.peft)).max()
    print(f"\nlargest |difference| in float32: {difference:.2e}")
    assert difference <= 1e-4


def test_llama_cpp_agrees_on_the_next_token_where_the_margin_is_clear(case: Case) -> None:
    case.adapter.save(case.folder / "ours.gguf", format="gguf")
    run_peer("llama", case.path, case.folder / "ours.gguf", case.folder / "llama.npy")
    theirs = numpy.load(case.folder / "llama.npy")
    two = numpy.sort(case.ours, axis=-1)[:, -2:]
    clear = two[:, 1] - two[:, 0] > 0.5
    agree = case.ours.argmax(-1) == theirs.argmax(-1)
    difference = mean_difference(case.ours, theirs)
    print(f"\n{int(clear.sum())} clear of {len(IDS)}; mean |difference| {difference:.4f}")
    assert clear.sum() >= 10
    assert agree[clear].all()
