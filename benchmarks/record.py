"""Results as JSON and Markdown, with the machine and the versions beside every figure."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from dfcompiler.target import parse_target

RESULTS = Path(__file__).parent / "results"
_PACKAGES = ("dfcompiler", "dace", "torch", "onnxruntime", "openvino", "numpy")


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    target = parse_target("cpu")
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "cpu": _cpu_name(),
        "target": target.name,
        "cores": target.cores,
        "l2_bytes": target.l2_bytes,
        "l3_bytes": target.l3_bytes,
        "versions": versions,
    }


def write(name: str, data: Mapping[str, Any], text: str) -> None:
    """Writes ``NAME.json`` and ``NAME.md`` and prints the latter."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    (RESULTS / f"{name}.md").write_text(text, encoding="utf-8")
    print(text)


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table; columns after the first are right-aligned."""
    lines = [header, ["---", *["--:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines) + "\n"


def machine_line(facts: Mapping[str, Any]) -> str:
    """One sentence about the machine."""
    versions = ", ".join(f"{name} {found}" for name, found in facts["versions"].items())
    return f"{facts['cpu']}, {facts['cores']} cores, {facts['target']}; {versions}.\n"


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    found = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(found, platform.machine())
