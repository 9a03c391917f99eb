"""What compiling costs: seconds cold and cached, peak memory, code, milliseconds to load, by depth.

Every compile has a process of its own; the imports of Python packages are part of its seconds.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import built, record
from benchmarks.cold_compile import compiled

LOADS = 15
DEEP = 48
"""Layers of the deep BERT-base."""

MODELS = {"minilm": "MiniLM", "bert_base": "BERT-base", f"bert_base_{DEEP}": f"BERT-base × {DEEP}"}
TIMES = {"minilm": 3, "bert_base": 3, f"bert_base_{DEEP}": 2}
"""Processes for each figure."""


def main() -> None:
    """Compiles in fresh processes and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", default=list(MODELS), choices=MODELS)
    options = parser.parse_args()
    data = {
        "machine": record.machine(),
        "models": {name: _measured(name) for name in MODELS if name in options.only},
    }
    record.write("compile_time", data, _text(data))


def _measured(name: str) -> dict[str, Any]:
    model = _exported(name)
    cold, cached = [], []
    with tempfile.TemporaryDirectory(dir=built.BUILD) as scratch:
        folder, cache = Path(scratch) / "m.dfc", Path(scratch) / "cache"
        for _ in range(TIMES[name]):
            shutil.rmtree(cache, ignore_errors=True)
            cold.append(compiled(model, folder, cache))
            cached.append(compiled(model, folder, cache))
        return {
            "cold": cold,
            "cached": cached,
            "load_ms": _load_ms(folder),
            "weights_bytes": (folder / "weights.bin").stat().st_size,
            "code_bytes": _code_bytes(folder / "model.so"),
            "source_bytes": sum(f.stat().st_size for f in (folder / "src").rglob("*.cpp")),
        }


def _exported(name: str) -> Path:
    if name != f"bert_base_{DEEP}":
        return built.exported(name)
    path = built.BUILD / f"{name}.onnx"
    if not path.is_file():
        # In a process of its own: a child's greatest memory begins with that of its parent.
        export = f"from models import bert_base; bert_base.export_onnx(Path({str(path)!r}), {DEEP})"
        command = f"from pathlib import Path; {export}"
        subprocess.run([sys.executable, "-c", command], check=True)
    return path


def _code_bytes(library: Path) -> int:
    """Bytes of instructions and constants."""
    done = subprocess.run(["size", str(library)], capture_output=True, text=True, check=True)
    return int(done.stdout.splitlines()[1].split()[0])


def _load_ms(artifact: Path) -> list[float]:
    """Each load in a process of its own, numpy being there already."""
    code = (
        "import sys, time, numpy, dfcompiler.runtime as r; t = time.perf_counter(); "
        "r.load(sys.argv[1]); print((time.perf_counter() - t) * 1e3)"
    )
    command = [sys.executable, "-c", code, str(artifact)]
    return [
        float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        for _ in range(LOADS)
    ]


def _middle(model: dict[str, Any], kind: str, key: str) -> float:
    return median(run[key] for run in model[kind])


def _text(data: dict[str, Any]) -> str:
    header = (
        "model",
        "weights",
        "cold s",
        "whole process s",
        "cached s",
        "peak memory",
        "per weights",
        "g++ peak",
        "code",
        "source",
        "load ms",
    )
    rows = [_row(name, model) for name, model in data["models"].items()]
    return (
        "# Compiling\n\n"
        "Medians of fresh processes; Python's imports are part of the seconds. "
        f"{record.machine_line(data['machine'])}\n"
        + record.markdown_table(header, rows)
        + _stages(data["models"])
        + _depth(data["models"])
    )


def _row(name: str, model: dict[str, Any]) -> tuple[str, ...]:
    peak = _middle(model, "cold", "peak_bytes")
    return (
        MODELS[name],
        f"{model['weights_bytes'] * 1e-6:.0f} MB",
        f"{_middle(model, 'cold', 'compile_s'):.2f}",
        f"{_middle(model, 'cold', 'process_s'):.2f}",
        f"{_middle(model, 'cached', 'compile_s'):.2f}",
        f"{peak * 1e-6:.0f} MB",
        f"{peak / model['weights_bytes']:.2f}",
        f"{_middle(model, 'cold', 'compiler_peak_bytes') * 1e-6:.0f} MB",
        f"{model['code_bytes'] * 1e-3:.0f} kB",
        f"{model['source_bytes'] * 1e-3:.0f} kB",
        f"{median(model['load_ms']):.1f}",
    )


def _stages(models: dict[str, Any]) -> str:
    lines = []
    for name, model in models.items():
        stages = {
            key: median(run["stages_s"][key] for run in model["cold"])
            for key in model["cold"][0]["stages_s"]
        }
        listed = ", ".join(f"{stage} {elapsed:.2f}" for stage, elapsed in stages.items())
        lines.append(f"* {MODELS[name]}, cold: {listed} s\n")
    return "\n" + "".join(lines)


def _depth(models: dict[str, Any]) -> str:
    """Twelve layers against many."""
    deep, plain = models.get(f"bert_base_{DEEP}"), models.get("bert_base")
    if not deep or not plain:
        return ""
    seconds = _middle(deep, "cold", "compile_s") / _middle(plain, "cold", "compile_s")
    code = deep["code_bytes"] / plain["code_bytes"]
    weights = deep["weights_bytes"] / plain["weights_bytes"]
    return (
        f"\nBERT-base of {DEEP} layers against 12: {seconds:.2f} × the time, "
        f"{code:.2f} × the code, {weights:.2f} × the weights.\n"
    )


if __name__ == "__main__":
    main()
