"""The layer table of docs/architecture.md, held against every #include of the tree."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# A folder may include itself and these; core's folders stand in order of dependence.
MAY_INCLUDE = {
    "core/base": [],
    "core/memory": ["core/base"],
    "core/threads": ["core/base", "core/memory"],
    "core/kernels": ["core/base", "core/memory", "core/threads"],
    "core/formats": ["core/base", "core/memory", "core/threads", "core/kernels"],
    "experts": ["core"],
    "router": ["core"],
    "lora": ["core", "experts"],
    "runtime": ["core", "experts", "router", "lora"],
    "python": ["core", "experts", "router", "lora", "runtime"],
}

# Third-party headers, by the files that may include them.
THIRD_PARTY = {
    r"absl/": r".*",
    r"nlohmann/": r"(core/formats|experts|lora|runtime)/.*",
    r"(oneapi/|dnnl)": r"core/kernels/dnnl_\w+\.cc",
    r"(torch|ATen|c10)/": r"lora/torch_\w+\.(cc|h)",
    r"(sqlite3|sodium)": r"lora/.*",
    r"toml\+\+/": r"runtime/(.*\.cc|table_reader\.h)",
    r"pybind11/": r"python/.*",
}


def sources() -> list[Path]:
    files: list[Path] = []
    for folder in {name.split("/")[0] for name in MAY_INCLUDE}:
        for pattern in ("*.h", "*.cc"):
            files += (ROOT / folder).rglob(pattern)
    return sorted(files)


def folder_of(path: str) -> str:
    parts = path.split("/")
    return "/".join(parts[:2]) if parts[0] == "core" else parts[0]


def violations(path: str, text: str) -> list[str]:
    """Every include of `text`, a file at `path`, that the tables above do not allow."""
    found = []
    folder = folder_of(path)
    allowed = [folder, *MAY_INCLUDE[folder]]
    for bracket, header in re.findall(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', text, re.M):
        own = bracket == '"' and header.split("/")[0] in {n.split("/")[0] for n in MAY_INCLUDE}
        if own:
            target = folder_of(header)
            if not any(target == name or target.startswith(name + "/") for name in allowed):
                found.append(f"{path} includes {header}: {folder} may not use {target}")
            continue
        if "/" not in header and "." not in header:
            continue  # The standard library.
        for pattern, files in THIRD_PARTY.items():
            if re.match(pattern, header):
                if not re.fullmatch(files, path):
                    found.append(f"{path} includes {header}: only {files} may")
                break
        else:
            if bracket == '"':
                found.append(f"{path} includes {header}: an unknown library")
    return found


@pytest.mark.parametrize("path", [str(p.relative_to(ROOT)) for p in sources()])
def test_includes_follow_the_layer_table(path: str) -> None:
    assert violations(path, (ROOT / path).read_text()) == []


def test_the_check_notices_edges_that_are_not_allowed() -> None:
    assert violations("core/base/a.h", '#include "experts/expert.h"\n')
    assert violations("core/memory/a.h", '#include "core/formats/gguf_file.h"\n')
    assert violations("router/a.cc", '#include "experts/expert.h"\n')
    assert violations("experts/a.cc", "#include <torch/torch.h>\n")
    assert violations("experts/a.cc", '#include "some_library.h"\n')
    assert not violations("runtime/a.cc", '#include "router/router.h"\n#include <vector>\n')
