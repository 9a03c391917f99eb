"""Our GPU code against torch and other peers, as shares of the machine's ceilings.

    python -m benchmarks.gpu prepare FOLDER     anywhere with nvcc: cross-compiles the artifacts
    python -m benchmarks.gpu run FOLDER         on the GPU: Python, numpy, torch; nine minutes

Where gigabytes of weights are too much to carry, ``prepare --without-weights`` leaves them and
large ONNX files out, and the other machine makes them before ``run``:

    python -m benchmarks.gpu weights FOLDER     needs what `on_gpu.weights` names

First come checks, which are not timed: every kernel, in modules of many outputs, and a generation;
``--case`` names them, too. Everything is checked against torch in float64, on fresh inputs and
poisoned outputs; ours count only if their error is at most 1.5 times that of torch in the same
precision. Then, case by case, those that are right are timed: ours
(with each expansion of the case), torch eager, torch.compile (max-autotune), and, where they are
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

from benchmarks.on_gpu.cases import Case
from benchmarks.on_gpu.order import CASES
from benchmarks.on_gpu.prepare import prepare, prepare_without_weights
from benchmarks.on_gpu.process import measure_cases
from benchmarks.on_gpu.report import result_of, table
from benchmarks.on_gpu.supervise import supervise
from benchmarks.on_gpu.timing import measure_ceilings
from benchmarks.on_gpu.weights import check_installed, make_weights, without_weights

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
    """Prepares artifacts, makes their weights, or runs them and writes ``gpu.json``, ``gpu.md``."""
    parser = argparse.ArgumentParser(prog="benchmarks.gpu")
    parser.add_argument("what", choices=("prepare", "weights", "run"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--target", default="cuda:sm_90")
    known = [case.name for case in CASES]
    parser.add_argument("--case", action="append", choices=known, help="may be repeated")
    parser.add_argument("--budget", type=float, default=BUDGET_S, help="seconds of 'run'")
    parser.add_argument("--without-weights", action="store_true", help="of 'prepare'")
    given = parser.parse_args(arguments)
    if given.without_weights and given.what != "prepare":
        parser.error(f"--without-weights is an option of prepare, not of {given.what}")
    cases = [case for case in CASES if not given.case or case.name in given.case]
    if given.what == "prepare":
        given.folder.mkdir(parents=True, exist_ok=True)
        making = prepare_without_weights if given.without_weights else prepare
        making(given.folder, given.target, cases)
    elif given.what == "weights":
        weigh(given.folder, cases)
    else:
        race(given.folder, cases, given.budget)


def weigh(folder: Path, cases: Sequence[Case]) -> None:
    """Makes missing weights.

    Raises:
        SystemExit: with a line for each case that has none still.
    """
    check_installed()
    failures = make_weights(folder, cases)
    if failures:
        raise SystemExit("\n".join(f"{name}: {why}" for name, why in failures.items()))


def race(folder: Path, cases: Sequence[Case], budget_s: float) -> None:
    """Runs cases, and writes after each what there is by then."""
    for case in cases:
        if without_weights(case, folder):
            print(f"{case.name} has no weights; 'weights' makes them", file=sys.stderr, flush=True)
    for result in run(folder, [case.name for case in cases], budget_s):
        write(folder, result)
        done = len(result["checks"]) + len(result["rows"])
        print(f"{done} of {len(cases)} cases", file=sys.stderr, flush=True)
    print(table(result))


if __name__ == "__main__":
    main()
