"""Errors of bf16 over many inputs, beside OpenVINO's: a single largest difference is chance.

Each input's outputs are compared with torch in float64; whoever is closer wins that input.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from contextlib import ExitStack
from statistics import mean
from typing import Any

import numpy as np

from benchmarks import built, record
from dfcompiler.reference.difference import compare
from dfcompiler.reference.engines import Entry
from dfcompiler.reference.runners import torch_module
from dfcompiler.reference.worker import Worker

ENGINES = ("dfcompiler", "openvino")
MODEL = "minilm"
INPUTS = {(1, 16): 32, (1, 128): 32, (8, 128): 8}
"""How many of each shape."""
KINDS = ("rms", "max_abs")


def main() -> None:
    """Measures every shape and writes the results."""
    rows = [_measured(shape, count) for shape, count in INPUTS.items()]
    data = {"machine": record.machine(), "rows": rows}
    record.write("bf16_errors", data, _text(data))


def _measured(shape: tuple[int, int], count: int) -> dict[str, Any]:
    module = importlib.import_module(f"models.{MODEL}")
    exact = torch_module(module.build().double())
    errors: dict[str, list[dict[str, float]]] = {name: [] for name in ENGINES}
    for seed in range(count):
        inputs = module.random_inputs(*shape, seed)
        expected = next(iter(exact(inputs).values()))
        for name, found in _outputs(shape, inputs).items():
            errors[name].append(_error(found, expected))
    return {"shape": list(shape), "inputs": count, "errors": errors}


def _outputs(shape: tuple[int, int], inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    shapes = {name: array.shape for name, array in inputs.items()}
    sizes = dict(zip(("batch", "sequence"), shape, strict=True))
    places = {
        "dfcompiler": built.artifact(MODEL, precision="bf16"),
        "openvino": built.exported(MODEL),
    }
    with ExitStack() as stack:
        workers = {
            name: stack.enter_context(Worker(Entry(name, str(path), 2, shapes, sizes, "bf16")))
            for name, path in places.items()
        }
        return {name: next(iter(w.outputs(inputs).values())) for name, w in workers.items()}


def _error(found: np.ndarray, expected: np.ndarray) -> dict[str, float]:
    (difference,) = compare({"0": found}, {"0": expected})
    off = found.astype(np.float64) - expected
    return {"rms": float(np.sqrt(np.mean(off * off))), "max_abs": difference.max_abs}


def _mean(errors: list[dict[str, float]]) -> dict[str, float]:
    return {kind: mean(one[kind] for one in errors) for kind in KINDS}


def _text(data: dict[str, Any]) -> str:
    names = {"rms": "root mean square", "max_abs": "largest"}
    header = ["batch × sequence", "inputs"]
    for kind in KINDS:
        header += [f"{names[kind]}, ours", "OpenVINO", "ours closer"]
    return (
        "# Errors of MiniLM in bf16\n\n"
        "Differences from torch in float64, means over the inputs. "
        f"{record.machine_line(data['machine'])}\n"
        + record.markdown_table(header, [_cells(row) for row in data["rows"]])
    )


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    cells = [" × ".join(map(str, row["shape"])), str(row["inputs"])]
    ours, theirs = (row["errors"][name] for name in ENGINES)
    for kind in KINDS:
        closer = sum(a[kind] <= b[kind] for a, b in zip(ours, theirs, strict=True))
        cells += [f"{_mean(ours)[kind]:.2e}", f"{_mean(theirs)[kind]:.2e}", str(closer)]
    return tuple(cells)


if __name__ == "__main__":
    main()
