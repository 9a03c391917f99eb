"""What compiling MiniLM costs: seconds cold and cached, peak memory, milliseconds to load."""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import record

BUILD = Path("build")
LOADS = 15


def main() -> None:
    """Compiles in fresh processes and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(_compile_here(_exported(), options.child)))
        return
    model = _exported()
    cold, cached = [], []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(options.repeats):
            cache = Path(folder) / "cache"
            shutil.rmtree(cache, ignore_errors=True)
            cold.append(_child(Path(folder), cache))
            cached.append(_child(Path(folder), cache))
        loads = _load_ms(Path(folder) / "m.dfc")
        weights = (Path(folder) / "m.dfc" / "weights.bin").stat().st_size
    data = {
        "model": model.name,
        "machine": record.machine(),
        "weights_bytes": weights,
        "cold": cold,
        "cached": cached,
        "load_ms": loads,
    }
    record.write("compile_time", data, _text(data))


def _exported() -> Path:
    path = BUILD / "minilm.onnx"
    if path.is_file():
        return path
    from models import minilm

    return minilm.export_onnx(path)


def _child(folder: Path, cache: Path) -> dict[str, Any]:
    """One compile in a process of its own."""
    shutil.rmtree(folder / "m.dfc", ignore_errors=True)
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.compile_time", "--child", str(folder / "m.dfc")],
        env={**os.environ, "DFC_CACHE_DIR": str(cache)},
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return {**found, "process_s": time.perf_counter() - started}


def _compile_here(model: Path, out: Path) -> dict[str, Any]:
    started = time.perf_counter()
    from dfcompiler import api

    done = api.compile_artifact(model, out)
    return {
        "compile_s": time.perf_counter() - started,
        "stages_s": dict(done.seconds),
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "compiler_peak_bytes": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024,
    }


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


def _text(data: dict[str, Any]) -> str:
    def middle(kind: str, key: str) -> float:
        return median(run[key] for run in data[kind])

    weights = data["weights_bytes"]
    rows = [
        (
            kind,
            f"{middle(kind, 'compile_s'):.2f}",
            f"{middle(kind, 'process_s'):.2f}",
            f"{middle(kind, 'peak_bytes') * 1e-6:.0f} MB",
            f"{middle(kind, 'peak_bytes') / weights:.2f}",
            f"{middle(kind, 'compiler_peak_bytes') * 1e-6:.0f} MB",
        )
        for kind in ("cold", "cached")
    ]
    header = ("cache", "compile s", "whole process s", "peak memory", "per weights", "g++ peak")
    return (
        f"# Compiling {data['model']}\n\n"
        f"{record.machine_line(data['machine'])}"
        "Imports of Python packages are part of the seconds. Medians of "
        f"{len(data['cold'])} processes each. Weights {weights * 1e-6:.0f} MB; load "
        f"{median(data['load_ms']):.1f} ms (median of {len(data['load_ms'])} processes).\n\n"
        + record.markdown_table(header, rows)
    )


if __name__ == "__main__":
    main()
