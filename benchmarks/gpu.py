"""Our GPU code against torch and other peers, as shares of the machine's ceilings.

    python -m benchmarks.gpu prepare FOLDER     anywhere with nvcc: cross-compiles the artifacts
    python -m benchmarks.gpu run FOLDER         on the GPU: Python, numpy, torch; nine minutes

Every contestant is checked against torch in float64 first, on fresh inputs and poisoned outputs;
ours count only if their error is at most 1.5 times that of torch in the same precision. Then ours
(with each expansion of products), torch eager, torch.compile (max-autotune), and, where they are
installed, ONNX Runtime and JAX take turns, without and with CUDA graphs. What fails, hangs or
crashes is a sentence in the result, and the others go on.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu_cases import CASES
from benchmarks.gpu_measure import measure_cases
from benchmarks.gpu_prepare import prepare
from benchmarks.gpu_report import result_of, table
from benchmarks.gpu_supervise import supervise
from benchmarks.gpu_timing import measure_ceilings

BUDGET_S = 510.0
"""Seconds for the cases; with the start and the ceilings nine minutes."""


def run(folder: Path, names: Sequence[str], budget_s: float = BUDGET_S) -> Iterator[dict[str, Any]]:
    """The result after each case, with what there is by then.

    Raises:
        SystemExit: without a GPU.
    """
    if not torch.cuda.is_available():
        raise SystemExit("benchmarks.gpu: torch finds no CUDA device; 'run' needs one")
    machine, rows = describe_machine(), list[dict[str, Any]]()
    ceilings = {"before": measure_ceilings()}
    torch.cuda.empty_cache()
    for row in supervise(measure_cases, names, folder, budget_s=budget_s):
        rows.append(row)
        yield result_of(machine, ceilings, rows)
    with suppress(RuntimeError):  # a device that was lost on the way has no ceilings any more
        ceilings["after"] = measure_ceilings()
    yield result_of(machine, ceilings, rows)


def describe_machine() -> dict[str, Any]:
    """Device and versions."""
    asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        driver = subprocess.run(asked, capture_output=True, text=True, check=True, timeout=20)
        version = driver.stdout.split("\n")[0].strip()
    except (OSError, subprocess.SubprocessError):
        version = "unknown"
    return {
        "gpu": torch.cuda.get_device_name(),
        "memory_bytes": torch.cuda.get_device_properties(0).total_memory,
        "driver": version,
        "cuda": torch.version.cuda,
        "torch": torch.__version__,
    }


def write(folder: Path, result: dict[str, Any]) -> None:
    """Writes ``gpu.json`` and ``gpu.md``."""
    (folder / "gpu.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    (folder / "gpu.md").write_text(table(result), encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    """Prepares artifacts, or runs them and writes ``gpu.json`` and ``gpu.md`` beside them."""
    parser = argparse.ArgumentParser(prog="benchmarks.gpu")
    parser.add_argument("what", choices=("prepare", "run"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--target", default="cuda:sm_90")
    known = [case.name for case in CASES]
    parser.add_argument("--case", action="append", choices=known, help="may be repeated")
    parser.add_argument("--budget", type=float, default=BUDGET_S, help="seconds of 'run'")
    given = parser.parse_args(arguments)
    cases = [case for case in CASES if not given.case or case.name in given.case]
    if given.what == "prepare":
        given.folder.mkdir(parents=True, exist_ok=True)
        prepare(given.folder, given.target, cases)
        return
    for result in run(given.folder, [case.name for case in cases], given.budget):
        write(given.folder, result)
        print(f"{len(result['rows'])} of {len(cases)} cases", file=sys.stderr, flush=True)
    print(table(result))


if __name__ == "__main__":
    main()
