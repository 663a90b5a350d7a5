"""coterie adapters, coterie.Adapter and answers with an adapter, on a real model."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy
import pytest

coterie = pytest.importorskip("coterie")
pytestmark = pytest.mark.model

MODEL = "smollm2-135m"
D_MODEL, D_FF = 576, 1536


def write_peft(folder: Path, seed: int, **config: Any) -> Path:
    """A PEFT folder with a strong change of two layers, written by hand."""
    random = numpy.random.default_rng(seed)
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    data = b""
    for layer in (3, 20):
        for matrix, shape in (("A", (2, D_MODEL)), ("B", (D_FF, 2))):
            values = random.normal(0, 0.05, shape).astype("<f4").tobytes()
            name = f"base_model.model.model.layers.{layer}.mlp.up_proj.lora_{matrix}.weight"
            offsets = [len(data), len(data) + len(values)]
            header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": offsets}
            data += values
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    folder.mkdir()
    (folder / "adapter_model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)
    fields = {"peft_type": "LORA", "r": 2, "lora_alpha": 16, "target_modules": ["up_proj"]}
    fields["base_model_name_or_path"] = "HuggingFaceTB/SmolLM2-135M-Instruct"
    (folder / "adapter_config.json").write_text(json.dumps({**fields, **config}))
    return folder


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store of its own that has the model of the user's."""
    from coterie.store import Store

    store = Store()
    record = store.find(MODEL)
    if record is None:
        pytest.fail(f"{MODEL} is not in the store: coterie pull {MODEL}")
    own = tmp_path / "own"
    (own / "models").mkdir(parents=True)
    fields = {**record.to_json(), "path": str(store.path_of(record).resolve())}
    (own / "models" / f"{MODEL}.json").write_text(json.dumps(fields))
    monkeypatch.setenv("COTERIE_HOME", str(own))
    return own


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> Any:
    """What a command prints as JSON."""
    from coterie.cli.main import run as run_command

    capsys.readouterr()
    code = run_command(["adapters", *(str(argument) for argument in arguments), "--json"])
    output = capsys.readouterr()
    assert code == 0, output.err
    return json.loads(output.out)


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The sentence of a command that fails."""
    from coterie.cli.main import run as run_command

    capsys.readouterr()
    assert run_command(["adapters", *(str(argument) for argument in arguments)]) == 1
    return capsys.readouterr().err


def test_an_adapter_from_import_to_removal(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = run(capsys, "import", write_peft(tmp_path / "home", 1), "--base", MODEL)
    assert (first["adapter"], first["version"]) == ("home", 1)
    assert "names no base by hash" in first["warning"]
    assert "HuggingFaceTB/SmolLM2-135M-Instruct" in first["warning"]
    assert "another model" not in first["warning"]
    second = run(capsys, "import", write_peft(tmp_path / "b", 2), "--base", MODEL, "--name", "home")
    assert second["version"] == 2

    (listed,) = run(capsys, "list")
    assert (listed["name"], listed["current"], len(listed["versions"])) == ("home", 2, 2)
    shown = run(capsys, "show", "home", "--version", 1)
    assert (shown["layers"], shown["ranks"], shown["linears"]) == ([3, 20], [2], ["up"])
    assert shown["served_bytes"] == 2 * 2 * 2 * (D_MODEL + D_FF)

    with coterie.Assistant.open() as assistant:

        def answer(**options: Any) -> Any:
            return assistant.generate(
                "Say hello.", max_tokens=12, temperature=0.0, logprobs=0, **options
            )

        # A small adapter need not change which token is likeliest, but how likely it is.
        def likelihoods(reply: Any) -> list[float]:
            return [token["logprob"] for token in reply.logprobs]

        plain = answer(expert=MODEL)
        adapted = answer(expert="home")
        assert (plain.adapter, adapted.adapter) == ("", "home@2")
        assert adapted.timings.how == "hit"
        assert likelihoods(adapted) != likelihoods(plain)
        assert likelihoods(answer(expert=MODEL, adapter="home")) == likelihoods(adapted)
        assert likelihoods(answer(expert="home", adapter="")) == likelihoods(plain)
        assert assistant.stats()["bytes_by_purpose"]["adapter"] == shown["served_bytes"]
        run(capsys, "rollback", "home", 1)
        assert answer(expert="home").adapter == "home@1"
        with pytest.raises(KeyError, match="away"):
            answer(expert=MODEL, adapter="away")

    assert "in use" in refused(capsys, "remove", "home", "--version", 1)
    run(capsys, "remove", "home", "--version", 2)
    run(capsys, "remove", "home")
    assert run(capsys, "list") == []


def test_exports_give_the_same_answers(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(capsys, "import", write_peft(tmp_path / "home", 1), "--base", MODEL)
    expert = coterie.Expert.open(
        json.loads((home / "models" / f"{MODEL}.json").read_text())["path"]
    )
    ids = expert.tokenizer.encode("The capital of France is Paris.")
    original = expert.logits(ids, adapter=coterie.Adapter.open(tmp_path / "home", base=expert))
    assert numpy.abs(original - expert.logits(ids)).max() > 0.5
    for format, path in (("peft", tmp_path / "out"), ("gguf", tmp_path / "out.gguf")):
        run(capsys, "export", "home", "--as", format, "-o", path)
        exported = coterie.Adapter.open(path, base=expert)
        assert exported.warning == ""
        assert numpy.abs(expert.logits(ids, adapter=exported) - original).max() < 1e-3
    merged = tmp_path / "merged.gguf"
    result = run(capsys, "export", "home", "--as", "merged-gguf", "--type", "Q8_0", "-o", merged)
    assert result["type"] == "Q8_0"
    assert 0 < result["moved"] < 0.05
    assert "merged-gguf" in refused(
        capsys, "export", "home", "--as", "merged-hf", "-o", tmp_path / "hf"
    )
    assert "something at" in refused(capsys, "export", "home", "-o", merged)


def test_what_cannot_be_an_adapter_of_the_base_is_refused_by_name(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dora = write_peft(tmp_path / "dora", 1, use_dora=True)
    assert "use_dora" in refused(capsys, "import", dora, "--base", MODEL)
    good = write_peft(tmp_path / "good", 1)
    assert "no model" in refused(capsys, "import", good, "--base", "other")
    for bad_name in ("../x", "a b"):
        assert "name" in refused(capsys, "import", good, "--base", MODEL, "--name", bad_name)
    assert "no adapter" in refused(capsys, "show", "nothing")
    assert run(capsys, "list") == []
