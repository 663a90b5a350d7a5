"""The wheel works without source tree and Abseil; the sdist holds what building needs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import venv
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODEL = "smollm2-135m"
# What every Linux with Python has; all else must lie in the wheel.
SYSTEM = re.compile(r"lib(c|m|dl|pthread|rt|stdc\+\+|gcc_s|gomp)\.so|ld-linux|linux-vdso")


def run(*command: str | Path, cwd: Path, clean: bool = True) -> str:
    """stdout of a command that succeeds; clean: as on a machine without this project."""
    drop = ("PYTHON", "VIRTUAL_ENV", "LD_", "COTERIE_ROUTER") if clean else ()
    environment = {k: v for k, v in os.environ.items() if not k.startswith(drop)}
    words = [str(word) for word in command]
    done = subprocess.run(words, cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{words}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with sdist and wheel, made by `python -m build` with this environment's tools."""
    pytest.importorskip("build")
    folder = tmp_path_factory.mktemp("dist")
    options = [
        "--no-isolation",
        "--skip-dependency-check",
        "--sdist",
        "--wheel",
        "--outdir",
        folder,
    ]
    run(
        sys.executable, "-m", "build", *options, "--sdist", "--wheel", ROOT, cwd=folder, clean=False
    )
    return folder


@pytest.fixture(scope="module")
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of a fresh environment with nothing but the wheel and what it asks for."""
    folder = tmp_path_factory.mktemp("fresh")
    venv.create(folder, with_pip=True, symlinks=True)
    wheel = next(built.glob("*.whl"))
    pip = ["-m", "pip", "install", "-q", "--disable-pip-version-check", "--only-binary=:all:"]
    run(folder / "bin" / "python", *pip, wheel, cwd=folder)
    return folder / "bin"


def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        name = next(n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        return Parser().parsestr(archive.read(name).decode())


def test_the_wheel_says_what_it_is(built: Path) -> None:
    wheel = next(built.glob("coterie-*.whl"))
    said = metadata(wheel)
    version = re.search(r"project\(coterie VERSION ([\d.]+)", (ROOT / "CMakeLists.txt").read_text())
    assert version is not None and said["Version"] == version[1]
    assert said["License-Expression"] == "Apache-2.0" and said["Requires-Python"] == ">=3.11"
    assert "Typing :: Typed" in said.get_all("Classifier", [])
    assert "company of expert language models" in str(said.get_payload())
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    for file in ("py.typed", "_coterie.pyi", "models.lock.json", "default_router.gguf"):
        assert f"coterie/{file}" in names
    assert not [name for name in names if name.startswith(("tests/", "bench/"))]


def test_the_wheel_needs_only_what_every_linux_has(installed: Path) -> None:
    package = next((installed.parent / "lib").glob("python*/site-packages/coterie"))
    module = next(package.glob("_coterie*.so"))
    lines = run("ldd", module, cwd=package).splitlines()
    assert any(str(package) in line and "libabsl_strings" in line for line in lines), lines
    for line in lines:
        name, _, where = line.strip().partition(" => ")
        assert SYSTEM.search(name) or str(package) in where, line


def test_an_installed_wheel_classifies_and_answers_in_an_empty_folder(
    installed: Path, tmp_path: Path
) -> None:
    assert "coterie" in run(installed / "coterie", "--help", cwd=tmp_path)
    program = "import coterie; print(coterie.Router.default().classify('sort a list').domain)"
    assert run(installed / "python", "-I", "-c", program, cwd=tmp_path) == "code\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.model
def test_an_installed_wheel_answers_with_a_model_of_the_store(
    installed: Path, tmp_path: Path
) -> None:
    asked = ["run", "Say hi.", "--expert", MODEL, "--max-tokens", "8", "--temperature", "0"]
    assert run(installed / "coterie", *asked, cwd=tmp_path).strip()


def test_the_sdist_holds_what_building_needs(built: Path) -> None:
    with tarfile.open(next(built.glob("coterie-*.tar.gz"))) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    tracked = run("git", "ls-files", cwd=ROOT, clean=False).splitlines()
    folders = ("core/", "experts/", "router/", "runtime/", "python/", "lora/")
    needed = [name for name in tracked if name.startswith(folders)]
    needed = [name for name in needed if not name.startswith("router/training/")]
    needed += ["CMakeLists.txt", "pyproject.toml", "README.md", "LICENSE"]
    assert len(needed) > 100 and [name for name in needed if name not in inside] == []
    assert not [name for name in inside if name.startswith((".venv", "build/", "tests/"))]
